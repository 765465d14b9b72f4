package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// A cost is what Argon2id spends on a hash.
type cost struct {
	memory  uint32 // KiB
	passes  uint32
	threads uint8
}

// passwordCost is what the OWASP Password Storage Cheat Sheet asks for. The tests lower it.
var passwordCost = cost{memory: 19 << 10, passes: 2, threads: 1}

// hashing bounds how many passwords are hashed at once, so that a flood of logins does not take all
// memory.
var hashing = make(chan struct{}, 4)

// hashPassword returns the hash in the usual PHC form, which says how it was made.
func hashPassword(ctx context.Context, password string) (string, error) {
	salt := make([]byte, 16)
	rand.Read(salt)
	key, err := argonKey(ctx, password, salt, passwordCost, 32)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, passwordCost.memory, passwordCost.passes, passwordCost.threads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key)), nil
}

// checkPassword reports whether the password is the one that was hashed.
func checkPassword(ctx context.Context, hash, password string) (bool, error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, fmt.Errorf("not an argon2id hash")
	}
	var version int
	var c cost
	_, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d",
		&version, &c.memory, &c.passes, &c.threads)
	if err != nil {
		return false, fmt.Errorf("parameters of an argon2id hash: %w", err)
	}
	if version != argon2.Version {
		return false, fmt.Errorf("argon2 version %d is not supported", version)
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("salt of an argon2id hash: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil {
		return false, fmt.Errorf("key of an argon2id hash: %w", err)
	}
	got, err := argonKey(ctx, password, salt, c, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1, err
}

func argonKey(
	ctx context.Context, password string, salt []byte, c cost, size uint32,
) ([]byte, error) {
	select {
	case hashing <- struct{}{}:
		defer func() { <-hashing }()
		return argon2.IDKey([]byte(password), salt, c.passes, c.memory, c.threads, size), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
