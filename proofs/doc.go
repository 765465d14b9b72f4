// Package proofs holds the tests that need more than the root module may depend on: torture on real servers,
// linearizability, models of the merge rules, and OnClaim on real databases.
package proofs
