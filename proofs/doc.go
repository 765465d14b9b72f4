// Package proofs has the tests whose dependencies the root module must not have: stress tests on
// real servers ("torture"), linearizability, models of the merge rules, and OnClaim on real
// databases.
package proofs
