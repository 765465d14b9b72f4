package main

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
)

type keygen struct{}

const keygenHelp = `
Keep it with the app's other secrets. The app decodes it and gives the bytes to
guest.Config.Secrets; all replicas get the same. To rotate, deploy twice: first
with the new secret behind the others, then, when every replica has it, with the
new one in front. Remove the old one when Config.TTL has passed since.`

func (keygen) Run(s *session) error {
	var secret [32]byte
	rand.Read(secret[:])
	text := base64.StdEncoding.EncodeToString(secret[:])
	if s.json {
		return s.print(map[string]string{"secret": text}, nil)
	}
	fmt.Fprintln(s.out, text)
	fmt.Fprintln(s.err, keygenHelp) // so that the standard output is only the secret
	return nil
}
