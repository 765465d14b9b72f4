package outages

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/rs/zerolog"
)

// through puts a proxy in front of a server. During the fault the proxy has these toxics.
func through(poisons ...string) func(testing.TB) *place {
	return func(t testing.TB) *place {
		proxy := proxyTo(t, redistest.Single(t).Addr)
		p := newPlace(t, proxy.Listen, redisstore.Config{})
		p.breaks = func() {
			for _, poison := range poisons {
				_, err := proxy.Toxics.AddToxicJson(strings.NewReader(poison))
				must(t, err)
			}
		}
		p.mends = func() { proxy.Toxics.ResetToxics(context.Background()) }
		return p
	}
}

func proxyTo(t testing.TB, addr string) *toxiproxy.Proxy {
	proxy := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil),
		zerolog.Nop()), "redis", "127.0.0.1:0", addr)
	must(t, proxy.Start())
	t.Cleanup(proxy.Stop)
	return proxy
}

// A tail delays a few of the replies. Toxiproxy's own latency with a toxicity would delay all
// replies of a few connections.
type tail struct {
	Latency int64 `json:"latency"` // ms
	Percent int   `json:"percent"`
}

func init() { toxics.Register("tail", new(tail)) }

func (tail) GetBufferSize() int { return 1024 }

func (l tail) Pipe(stub *toxics.ToxicStub) {
	for {
		select {
		case <-stub.Interrupt:
			return
		case c := <-stub.Input:
			if c == nil {
				stub.Close()
				return
			}
			if rand.IntN(100) < l.Percent {
				delay := time.NewTimer(time.Duration(l.Latency) * time.Millisecond)
				select {
				case <-delay.C:
				case <-stub.Interrupt:
					delay.Stop()
					stub.Output <- c
					return
				}
			}
			stub.Output <- c
		}
	}
}
