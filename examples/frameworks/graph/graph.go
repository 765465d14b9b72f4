// Package graph is what gqlgen makes of schema.graphqls.
package graph

//go:generate go run github.com/99designs/gqlgen@v0.17.98 generate --config gqlgen.yml
