package interop

import (
	"crypto/hkdf"
	"crypto/sha256"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
)

// What identify must tell of every node. DCUtR it speaks over relayed connections alone.
var spoken = []protocol.ID{
	"/messagehub/s2s/1", "/meshsub/1.1.0", "/ipfs/lan/kad/1.0.0",
	"/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/libp2p/circuit/relay/0.2.0/stop",
}

func TestIdentifyAndPingOverBothTransports(t *testing.T) {
	node := startNode(t, nodeIP)
	for _, transport := range []string{"tcp", "udp"} {
		t.Run(transport, func(t *testing.T) {
			h, ctx := newHost(t, dialerIP), inTime(t)
			info := over(node.info(), transport)
			must(t, h.Connect(ctx, info))
			if used := h.Network().ConnsToPeer(info.ID)[0].RemoteMultiaddr(); !strings.Contains(used.String(), transport) {
				t.Errorf("connected over %s", used)
			}
			must(t, (<-ping.Ping(ctx, h, info.ID)).Error)
			version, err := h.Peerstore().Get(info.ID, "ProtocolVersion")
			must(t, err)
			if version != "messagehub/1" {
				t.Errorf("its protocol version is %q", version)
			}
			supported, err := h.Peerstore().SupportsProtocols(info.ID, spoken...)
			must(t, err)
			if len(supported) != len(spoken) {
				t.Errorf("it speaks only %v of %v", supported, spoken)
			}
		})
	}
}

// contentID is the CIDv1 (raw, SHA-256) of a string, under which docs/wire.md advertises it.
func contentID(t *testing.T, text string) cid.Cid {
	hash, err := multihash.Sum([]byte(text), multihash.SHA2_256, -1)
	must(t, err)
	return cid.NewCidV1(cid.Raw, hash)
}

func TestANodeIsFoundInTheDHTAmongPrivateAddresses(t *testing.T) {
	h, ctx := newHost(t, "127.0.0.1"), inTime(t)
	kad, err := dht.New(h, dht.ProtocolPrefix("/ipfs/lan"), dht.Mode(dht.ModeServer))
	must(t, err)
	t.Cleanup(func() { _ = kad.Close() })
	// The node has no other peer than a Go DHT server, and its records live there.
	node := startNode(t, "127.0.0.1", "MESSAGEHUB_LIBP2P_DHT_BOOTSTRAP_PEERS="+address(t, h))
	self := node.status()
	key := contentID(t, "p2p:"+self.ServerName)
	eventually(t, "the node tells the DHT its name", func() bool {
		held, err := kad.ProviderStore().GetProviders(ctx, key.Hash())
		must(t, err)
		return len(held) == 1 && held[0].ID.String() == self.PeerID
	})

	// A second Go node, which knows only the first, looks it up.
	seeker := newHost(t, "127.0.0.1")
	look, err := dht.New(seeker, dht.ProtocolPrefix("/ipfs/lan"), dht.Mode(dht.ModeClient))
	must(t, err)
	t.Cleanup(func() { _ = look.Close() })
	must(t, seeker.Connect(ctx, *host.InfoFromHost(h)))
	eventually(t, "the node is found", func() bool {
		for found := range look.FindProvidersAsync(ctx, key, 1) {
			return found.ID.String() == self.PeerID
		}
		return false
	})
}

func TestANodeIsReachedThroughARelayAndThenDirectly(t *testing.T) {
	relayHost := newHost(t, relayIP, libp2p.ForceReachabilityPublic(),
		libp2p.EnableRelayService(relay.WithInfiniteLimits()))
	node := startNode(t, nodeIP,
		"MESSAGEHUB_LIBP2P_DHT_BOOTSTRAP_PEERS=",
		"MESSAGEHUB_LIBP2P_STATIC_RELAYS="+address(t, relayHost))
	id, err := peer.Decode(node.status().PeerID)
	must(t, err)
	circuit, err := ma.NewMultiaddr(address(t, relayHost) + "/p2p-circuit")
	must(t, err)
	relayed := peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{circuit}}

	// Rust's end resets its stream when it has sent SYNC, and what Go has not read by then is lost to
	// it. Whoever comes anew is a new try.
	for try := 1; !isPunchedThrough(t, relayed); try++ {
		if try == 5 {
			t.Fatal("no hole is punched")
		}
	}
}

// isPunchedThrough says whether a host that reaches a node through its relay gets a direct connection
// by DCUtR.
func isPunchedThrough(t *testing.T, relayed peer.AddrInfo) bool {
	punches := &punches{}
	dialer := newHost(t, dialerIP, libp2p.EnableHolePunching(holepunch.WithTracer(punches)))
	ctx := inTime(t)
	eventually(t, "the node has a reservation and is dialed through the relay", func() bool {
		return dialer.Connect(ctx, relayed) == nil
	})
	must(t, (<-ping.Ping(network.WithAllowLimitedConn(ctx, "test"), dialer, relayed.ID)).Error)

	eventually(t, "a hole punch ends", func() bool { return punches.ended() })
	if !punches.succeeded() {
		return false
	}
	eventually(t, "there is a direct connection", func() bool {
		for _, connection := range dialer.Network().ConnsToPeer(relayed.ID) {
			if _, err := connection.RemoteMultiaddr().ValueForProtocol(ma.P_CIRCUIT); err != nil {
				return true
			}
		}
		return false
	})
	return true
}

// punches notes what DCUtR did.
type punches struct {
	mutex            sync.Mutex
	isDone, isFailed bool
}

func (p *punches) Trace(event *holepunch.Event) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	switch what := event.Evt.(type) {
	case *holepunch.EndHolePunchEvt:
		p.isDone = p.isDone || what.Success
		p.isFailed = p.isFailed || !what.Success
	case *holepunch.ProtocolErrorEvt:
		p.isFailed = true
	}
}

func (p *punches) succeeded() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.isDone
}

func (p *punches) ended() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.isDone || p.isFailed
}

func TestANodeLearnsThatItIsPublicAndRelaysForThoseItIsToldTo(t *testing.T) {
	// Whether an address can be dialed, others say: AutoNAT v2, here of Go.
	judge := newHost(t, relayIP, libp2p.ForceReachabilityPublic(), libp2p.EnableAutoNATv2())
	reserve := func(who string) error {
		node := startNode(t, nodeIP,
			"MESSAGEHUB_LIBP2P_DHT_BOOTSTRAP_PEERS="+address(t, judge), "MESSAGEHUB_LIBP2P_RELAY_SERVICE="+who)
		eventually(t, "the node learns that it is public", func() bool {
			return node.status().Reachability.Kind == "public"
		})
		h, info := newHost(t, dialerIP), node.info()
		must(t, h.Connect(inTime(t), info))
		var err error
		eventually(t, "the node speaks the relay's protocol", func() bool {
			_, err = circuit.Reserve(inTime(t), h, info)
			return err == nil || !strings.Contains(err.Error(), "protocols not supported")
		})
		return err
	}
	if err := reserve("members"); err == nil {
		t.Error("a stranger got a reservation of a relay for members")
	}
	if err := reserve("anyone"); err != nil {
		t.Errorf("a stranger got no reservation of a relay for anyone: %v", err)
	}
}

// privateNetworkKey is what docs/wire.md derives from a secret.
func privateNetworkKey(t *testing.T, secret string) pnet.PSK {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "libp2p", 32)
	must(t, err)
	return key
}

func TestAPrivateNetworkIsEnteredWithItsSecretAlone(t *testing.T) {
	node := startNode(t, "127.0.0.1",
		"MESSAGEHUB_LIBP2P_LISTEN_ADDRESSES=/ip4/127.0.0.1/tcp/0",
		"MESSAGEHUB_LIBP2P_PRIVATE_NETWORK_SECRET=right")
	enter := func(options ...libp2p.Option) error {
		options = append(options, libp2p.Transport(tcp.NewTCPTransport), libp2p.NoListenAddrs, libp2p.DisableMetrics())
		h, err := libp2p.New(options...)
		must(t, err)
		t.Cleanup(func() { _ = h.Close() })
		ctx, info := inTime(t), node.info()
		if err := h.Connect(ctx, info); err != nil {
			return err
		}
		return (<-ping.Ping(ctx, h, info.ID)).Error
	}
	if err := enter(libp2p.PrivateNetwork(privateNetworkKey(t, "right"))); err != nil {
		t.Errorf("the right secret does not open it: %v", err)
	}
	if err := enter(libp2p.PrivateNetwork(privateNetworkKey(t, "wrong"))); err == nil {
		t.Error("the wrong secret opens it")
	}
	if err := enter(); err == nil {
		t.Error("it is open without a secret")
	}
}
