package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A load is what wrk measured over TCP, with 16 connections of 16 visitors.
type load struct {
	rate float64 // requests a second
	p99  time.Duration
}

var (
	rateLine = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	p99Line  = regexp.MustCompile(`\n\s+99%\s+(\S+)`)
	badLine  = regexp.MustCompile(`(?:Socket errors|Non-2xx).*`)
)

// wrk puts load on the listener's app for some seconds.
func wrk(dir string, l net.Listener, w Work, visitors []*browser, seconds int) (load, error) {
	var script strings.Builder
	fmt.Fprintf(&script, "local requests, i = {}, 0\ninit = function()\n")
	for _, b := range visitors {
		fmt.Fprintf(&script, "  requests[#requests + 1] = wrk.format(%q, %q, {Cookie = %q})\n",
			w.method(), w, b.header())
	}
	fmt.Fprintf(&script,
		"end\nrequest = function()\n  i = i %% #requests + 1\n  return requests[i]\nend\n")
	file := filepath.Join(dir, "wrk.lua")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		return load{}, err
	}
	out, err := exec.Command("wrk", "-t1", "-c16", "-d"+strconv.Itoa(seconds)+"s", "--latency",
		"-s", file, "http://"+l.Addr().String()).CombinedOutput()
	text := string(out)
	if err != nil {
		return load{}, fmt.Errorf("wrk: %w: %s", err, text)
	}
	if bad := badLine.FindString(text); bad != "" {
		return load{}, fmt.Errorf("wrk: %s", bad)
	}
	rate, p99 := rateLine.FindStringSubmatch(text), p99Line.FindStringSubmatch(text)
	if rate == nil || p99 == nil {
		return load{}, fmt.Errorf("wrk said: %s", text)
	}
	var l0 load
	if l0.rate, err = strconv.ParseFloat(rate[1], 64); err != nil {
		return load{}, err
	}
	l0.p99, err = time.ParseDuration(p99[1])
	return l0, err
}

// A loadResult is a contender's rate and p99, in units of the limit's in the same round.
type loadResult struct{ rate, p99 figure }

// loads runs wrk on each app in turn.
func loads(apps map[string]App, names []string, base string, w Work, rounds,
	seconds int) (map[string]loadResult, error) {
	dir, err := os.MkdirTemp("", "wrk")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	listeners, visitors := map[string]net.Listener{}, map[string][]*browser{}
	for _, name := range names {
		if listeners[name], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
		defer listeners[name].Close()
		go apps[name].Serve(listeners[name])
		for range tabs {
			b, err := newKnown(apps[name], Small)
			if err != nil {
				return nil, err
			}
			visitors[name] = append(visitors[name], b)
		}
	}
	rates, p99s := map[string][]float64{}, map[string][]float64{}
	for range rounds {
		round := map[string]load{}
		for _, name := range names {
			if round[name], err = wrk(dir, listeners[name], w, visitors[name],
				seconds); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		for _, name := range names {
			rates[name] = append(rates[name], round[name].rate/round[base].rate)
			p99s[name] = append(p99s[name], float64(round[name].p99)/float64(round[base].p99))
		}
	}
	results := map[string]loadResult{}
	for _, name := range names {
		results[name] = loadResult{figureOf(rates[name]), figureOf(p99s[name])}
	}
	return results, nil
}
