package proofs

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// The order from two tabs of docs/recipes.md.

var orderID = guest.NewValue("order", guest.PreferGuest[string])

type orders struct {
	database
	db *sql.DB
}

// checkout places an order for the cart. placed is false if the order exists already, or the cart
// is empty.
func (o orders) checkout(ctx context.Context) (id string, placed bool, err error) {
	// All tabs and repetitions get one number, until its order is placed and out of the cart.
	err = orderID.Update(ctx, func(old string) (string, error) {
		id = cmp.Or(old, rand.Text())
		return id, nil
	})
	if err != nil {
		return "", false, err
	}
	lines, err := cart.All(ctx)
	if err != nil || len(lines) == 0 {
		return id, false, err
	}
	if placed, err = o.place(ctx, id, lines); err != nil || !placed {
		return id, false, err
	}
	for sku, n := range lines { // what another tab has added meanwhile stays
		left, err := cart.Add(ctx, sku, -n)
		if err == nil && left < 0 { // another tab has removed some
			err = cart.Delete(ctx, sku)
		}
		if err != nil {
			return id, true, err // the number stays, so nothing is ordered again
		}
	}
	return id, true, orderID.Delete(ctx)
}

// place stores the order with its lines, or nothing.
func (o orders) place(ctx context.Context, id string, lines map[string]int64) (placed bool, err error) {
	tx, err := o.db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback()
	res, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES ("+o.mark(1)+") ON CONFLICT (id) DO NOTHING", id)
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	for sku, n := range lines {
		insert := "INSERT INTO order_lines (order_id, sku, n) VALUES (" + o.mark(1) + ", " + o.mark(2) + ", " + o.mark(3) + ")"
		if _, err := tx.ExecContext(ctx, insert, id, sku, n); err != nil {
			return false, err
		}
	}
	return true, tx.Commit()
}

func TestAnOrderFromTwoTabs(t *testing.T) {
	databases(t, func(t *testing.T, d database) {
		db := d.open(t)
		for _, table := range []string{
			"CREATE TABLE orders (id VARCHAR(64) PRIMARY KEY)",
			"CREATE TABLE order_lines (order_id VARCHAR(64) NOT NULL REFERENCES orders (id), sku VARCHAR(64), n INT)",
		} {
			if _, err := db.Exec(table); err != nil {
				t.Fatal(err)
			}
		}
		o := orders{d, db}
		m, err := guest.New(guest.Config{
			Store: memstore.New(memstore.Config{}), Secrets: [][]byte{[]byte("a secret of the proofs, 32 bytes")},
			Data: []guest.Kind{cart, orderID}, Account: func(*http.Request) string { return "ann" },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx := m.As(t.Context(), "ann")
		has := func(when string, wantOrders, wantSold, wantLeft int64) {
			t.Helper()
			var n, sold int64
			if err := db.QueryRow("SELECT COUNT(*) FROM orders").Scan(&n); err != nil {
				t.Fatal(err)
			}
			if err := db.QueryRow("SELECT COALESCE(SUM(n), 0) FROM order_lines WHERE sku = 'tea'").Scan(&sold); err != nil {
				t.Fatal(err)
			}
			left, err := cart.Get(ctx, "tea")
			if err != nil || n != wantOrders || sold != wantSold || left != wantLeft {
				t.Errorf("%s: %d orders, %d sold, %d in the cart, %v; want %d, %d, %d", when, n, sold, left, err, wantOrders, wantSold, wantLeft)
			}
		}

		cart.Add(ctx, "tea", 3)
		var tabs sync.WaitGroup
		var placed atomic.Int64
		for range 4 {
			tabs.Go(func() {
				if _, ok, err := o.checkout(m.As(t.Context(), "ann")); err != nil {
					t.Error(err)
				} else if ok {
					placed.Add(1)
				}
			})
		}
		tabs.Wait()
		if n := placed.Load(); n != 1 {
			t.Errorf("%d tabs say that they have placed it", n)
		}
		has("four tabs at once", 1, 3, 0)

		cart.Add(ctx, "tea", 2)
		if _, ok, err := o.checkout(ctx); !ok || err != nil {
			t.Errorf("the next order: %v, %v", ok, err)
		}
		has("the next order", 2, 5, 0)

		// If the process stops after the order is stored, it is not ordered again unless the
		// visitor asks for it.
		cart.Add(ctx, "tea", 1)
		orderID.Set(ctx, "number")
		if ok, err := o.place(ctx, "number", map[string]int64{"tea": 1}); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if id, ok, err := o.checkout(ctx); id != "number" || ok || err != nil {
			t.Errorf("after a crash: %s, %v, %v", id, ok, err)
		}
		has("after a crash", 3, 6, 1)
		orderID.Delete(ctx) // "Order once more"
		if _, ok, err := o.checkout(ctx); !ok || err != nil {
			t.Errorf("once more: %v, %v", ok, err)
		}
		has("once more", 4, 7, 0)
	})
}
