package main

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
)

const (
	additions = 200
	tabs      = 16
)

// survivors returns what the cart holds after one visitor's tabs have added to it in parallel, each
// with success.
func survivors(app App) (int, error) {
	b, err := newKnown(app, Small)
	if err != nil {
		return 0, err
	}
	var left atomic.Int64
	left.Store(additions)
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range tabs {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := b.visit(app, Add, ""); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	text, err := b.visit(app, Add, "")
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(text)
	return n - 1, err
}

func do(c Call) error {
	if status, _, body := c.Do(); status != 200 {
		return fmt.Errorf("status %d: %s", status, body)
	}
	return nil
}

// claims prepares n claims: each of a guest with data, into an account that has data of its own, or
// none.
func claims(app App, r Record, existing bool, n int) ([]Call, error) {
	list := make([]Call, n)
	for i := range list {
		account := rand.Text()
		if existing {
			earlier, err := claim(app, r, account)
			if err == nil {
				err = do(earlier)
			}
			if err != nil {
				return nil, err
			}
		}
		var err error
		if list[i], err = claim(app, r, account); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// claim creates a guest with a theme and a cart and prepares its claim.
func claim(app App, r Record, account string) (Call, error) {
	b, err := newKnown(app, r)
	if err != nil {
		return nil, err
	}
	if _, err := b.visit(app, Add, ""); err != nil {
		return nil, err
	}
	return app.Prepare(Claim, account, b.header()), nil
}

func claimTraffic(w *wire, app App, r Record, existing bool) (traffic, error) {
	const n = 4
	list, err := claims(app, r, existing, n)
	if err != nil {
		return traffic{}, err
	}
	return w.traffic(n, func(i int) error {
		status, _, body := list[i].Do()
		if status != 200 || string(body) != "true" {
			return fmt.Errorf("status %d: %s", status, body)
		}
		return nil
	})
}
