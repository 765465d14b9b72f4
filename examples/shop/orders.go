package main

import (
	"context"
	"database/sql"
	"time"
)

// An Order is what a member bought.
type Order struct {
	ID     int64
	Placed time.Time
	Lines  []OrderLine
}

// An OrderLine keeps the name and price of the day.
type OrderLine struct {
	Name   string
	Amount int64
	Price  Cents
}

func (l OrderLine) Total() Cents { return Cents(l.Amount) * l.Price }

func (o Order) Total() (sum Cents) {
	for _, l := range o.Lines {
		sum += l.Total()
	}
	return sum
}

type orders struct{ db *sql.DB }

// place makes an order. form is the random number of the form that was sent: sent twice it orders
// once, and placed is false the second time.
func (o orders) place(ctx context.Context, userID, form string, lines []Line) (placed bool, err error) {
	tx, err := o.db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback()
	res, err := tx.ExecContext(ctx, `INSERT INTO orders (user_id, form, placed) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
		userID, form, time.Now().Unix())
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	id, err := res.LastInsertId()
	if err != nil {
		return false, err
	}
	for _, l := range lines {
		_, err := tx.ExecContext(ctx, `INSERT INTO order_lines (order_id, name, amount, price) VALUES (?, ?, ?, ?)`,
			id, l.Name, l.Amount, int64(l.Price))
		if err != nil {
			return false, err
		}
	}
	return true, tx.Commit()
}

// of returns the user's orders, the newest first.
func (o orders) of(ctx context.Context, userID string) (all []Order, err error) {
	rows, err := o.db.QueryContext(ctx, `SELECT id, placed, name, amount, price
		FROM orders JOIN order_lines ON order_id = id WHERE user_id = ? ORDER BY id DESC, order_lines.rowid`, userID)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id, placed int64
		var l OrderLine
		if err := rows.Scan(&id, &placed, &l.Name, &l.Amount, &l.Price); err != nil {
			return nil, err
		}
		if n := len(all); n == 0 || all[n-1].ID != id {
			all = append(all, Order{ID: id, Placed: time.Unix(placed, 0)})
		}
		last := &all[len(all)-1]
		last.Lines = append(last.Lines, l)
	}
	return all, rows.Err()
}
