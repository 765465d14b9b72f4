package main

import (
	"embed"
	"fmt"
	"html/template"
)

// A Plant is what the shop sells.
type Plant struct {
	SKU, Name, Latin, Care string
	Price                  Cents
	Hue                    int           // of the wall behind it, in degrees
	Picture                template.HTML // an inline SVG
}

// Cents are euro cents: money is counted in whole numbers.
type Cents int64

func (c Cents) String() string { return fmt.Sprintf("€%d.%02d", c/100, c%100) }

var catalog = []Plant{
	{SKU: "monstera", Name: "Monstera", Latin: "Monstera deliciosa", Care: "Bright shade, weekly water", Price: 2900, Hue: 95},
	{SKU: "pilea", Name: "Pilea", Latin: "Pilea peperomioides", Care: "Bright, turn it now and then", Price: 1450, Hue: 40},
	{SKU: "flamingo", Name: "Flamingo flower", Latin: "Anthurium andraeanum", Care: "Warm, light, a little humid", Price: 2200, Hue: 205},
	{SKU: "snake", Name: "Snake plant", Latin: "Dracaena trifasciata", Care: "Any light, forgets to drink", Price: 1900, Hue: 70},
	{SKU: "pearls", Name: "String of pearls", Latin: "Curio rowleyanus", Care: "Full sun, let it trail", Price: 1250, Hue: 300},
	{SKU: "cactus", Name: "Bunny ears", Latin: "Opuntia microdasys", Care: "Sun, water once a month", Price: 990, Hue: 25},
	{SKU: "fern", Name: "Boston fern", Latin: "Nephrolepis exaltata", Care: "Shade, never quite dry", Price: 1600, Hue: 240},
	{SKU: "aloe", Name: "Aloe", Latin: "Aloe vera", Care: "Sun, seldom water", Price: 1150, Hue: 155},
}

//go:embed plants/*.svg
var pictures embed.FS

var plants = map[string]*Plant{}

func init() {
	for i := range catalog {
		p := &catalog[i]
		svg, err := pictures.ReadFile("plants/" + p.SKU + ".svg")
		if err != nil {
			panic(err) // a plant without a picture is a mistake in this file
		}
		p.Picture = template.HTML(svg)
		plants[p.SKU] = p
	}
}

// A Line is one row of a cart or of an order.
type Line struct {
	*Plant
	Amount int64
}

func (l Line) Total() Cents { return Cents(l.Amount) * l.Price }

// linesOf returns the lines of a cart in the order of the catalog. What is not sold any more is
// left out.
func linesOf(cart map[string]int64) (lines []Line) {
	for i := range catalog {
		p := &catalog[i]
		if amount := cart[p.SKU]; amount > 0 {
			lines = append(lines, Line{p, amount})
		}
	}
	return lines
}

func count(lines []Line) (n int64) {
	for _, l := range lines {
		n += l.Amount
	}
	return n
}

func total(lines []Line) (sum Cents) {
	for _, l := range lines {
		sum += l.Total()
	}
	return sum
}
