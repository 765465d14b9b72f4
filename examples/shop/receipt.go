package main

import (
	"fmt"

	"github.com/guestkit/guest"
)

// inWords tells the visitor what signing in did to what was kept in this browser.
func inWords(receipt guest.Receipt) (lines []string) {
	if receipt.Pending {
		return []string{"Your cart is on its way: it will be here in a moment."}
	}
	for _, k := range receipt.Kinds {
		switch k.Name {
		case Cart.Name():
			lines = append(lines, cartInWords(k)...)
		case Wishes.Name():
			lines = append(lines, wishesInWords(k)...)
		case Theme.Name():
			lines = append(lines, themeInWords(k)...)
		}
	}
	return lines
}

func cartInWords(k guest.KindReceipt) (lines []string) {
	added := k.ResultTotal - k.AccountTotal
	switch {
	case added <= 0:
	case k.Outcome == guest.Moved && added == 1:
		lines = append(lines, "Your item moved to your account.")
	case k.Outcome == guest.Moved:
		lines = append(lines, fmt.Sprintf("Your %d items moved to your account.", added))
	case k.AccountTotal == 1:
		lines = append(lines, fmt.Sprintf("%s from this browser %s added to the one you had.", plural(added, "item"), was(added)))
	default:
		lines = append(lines, fmt.Sprintf("%s from this browser %s added to the %d you had.", plural(added, "item"), was(added), k.AccountTotal))
	}
	if left := k.GuestTotal - added; left > 0 {
		lines = append(lines, fmt.Sprintf("%s did not fit.", plural(left, "item")))
	}
	return lines
}

func wishesInWords(k guest.KindReceipt) []string {
	added := int64(k.ResultItems - k.AccountItems)
	switch {
	case added <= 0:
		return nil
	case k.Outcome == guest.Moved:
		return []string{fmt.Sprintf("Your wish list came along, with %s.", plural(added, "plant"))}
	}
	return []string{fmt.Sprintf("%s %s added to your wish list.", plural(added, "plant"), was(added))}
}

func themeInWords(k guest.KindReceipt) []string {
	switch k.Outcome {
	case guest.Moved:
		return []string{"Your theme was kept."}
	case guest.Kept:
		return []string{"Your account’s own theme is back."}
	}
	return nil
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func was(n int64) string {
	if n == 1 {
		return "was"
	}
	return "were"
}
