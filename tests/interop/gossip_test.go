package interop

import (
	"context"
	"crypto/sha256"
	"strings"
	"sync"
	"testing"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/crypto/chacha20poly1305"
)

// topicOf is the opaque name of a room's topic, and messageID the id of a message in it; both as in
// docs/wire.md, section "Gossip".
func topicOf(roomID string) string {
	hash := sha256.Sum256([]byte("messagehub room topic 1\x00" + roomID))
	return base32Lower.EncodeToString(hash[:16])
}

func messageID(message *pb.Message) string {
	hash := sha256.Sum256([]byte(message.GetTopic() + "\x00" + string(message.GetData())))
	return string(hash[:20])
}

func TestTheVectorsOfTheWire(t *testing.T) {
	if topic := topicOf("!room:example.org"); topic != "5iekc4egbyjsom5eayc4zg2uui" {
		t.Errorf("the topic is %s", topic)
	}
}

// newGossip speaks gossipsub the way nodes do: messages have no author, number or signature. It is
// made before a host connects, since rust-libp2p asks a peer only once whether it speaks it.
func newGossip(t *testing.T, h host.Host, options ...pubsub.Option) *pubsub.PubSub {
	options = append(options,
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(messageID),
	)
	gossip, err := pubsub.NewGossipSub(inTime(t), h, options...)
	must(t, err)
	return gossip
}

// subscribe joins the topic of a room.
func subscribe(t *testing.T, gossip *pubsub.PubSub, roomID string) (*pubsub.Topic, *pubsub.Subscription) {
	topic, err := gossip.Join(topicOf(roomID))
	must(t, err)
	subscription, err := topic.Subscribe()
	must(t, err)
	return topic, subscription
}

// roomWithMember is a room on a node in which a server in Go is, too: a node that is alone in a room
// has nobody to tell.
func roomWithMember(t *testing.T) (*node, string, *joined) {
	node := startNode(t, nodeIP)
	node.register("anna")
	m := newMember(t, dialerIP)
	must(t, m.host.Connect(inTime(t), node.info()))
	roomID := node.createRoom(object{"preset": "public_chat"})
	return node, roomID, m.join(node, roomID)
}

// A subscriber who is no member gets frames, and can read nothing of them.
func TestFramesComeSealedAndUnsigned(t *testing.T) {
	node, roomID, _ := roomWithMember(t)
	h, ctx := newHost(t, dialerIP), inTime(t)
	_, subscription := subscribe(t, newGossip(t, h), roomID)
	must(t, h.Connect(ctx, node.info()))
	message := sayUntilHeard(ctx, t, node, roomID, subscription)
	if message.From != nil || message.Seqno != nil || message.Signature != nil || message.Key != nil {
		t.Errorf("it has an author, a number, a signature or a key: %v", message.Message)
	}
	if message.Data[0] != 2 || len(message.Data) <= 1+keyIDBytes+nonceBytes+chacha20poly1305.Overhead {
		t.Errorf("it is no sealed frame: %q", message.Data)
	}
	for _, word := range []string{secret, roomID, node.status().ServerName, "m.room.message"} {
		if strings.Contains(string(message.Data), word) {
			t.Errorf("%q can be read in it", word)
		}
	}
}

// What the room says; a frame must not show it.
const secret = "a word among friends"

// sayUntilHeard repeats a text until gossip has formed a mesh and carries it.
func sayUntilHeard(ctx context.Context, t *testing.T, n *node, roomID string, s *pubsub.Subscription) *pubsub.Message {
	heard := make(chan *pubsub.Message, 1)
	go func() {
		if message, err := s.Next(ctx); err == nil {
			heard <- message
		}
	}()
	var message *pubsub.Message
	eventually(t, "a frame comes", func() bool {
		n.say(roomID, secret)
		select {
		case message = <-heard:
			return true
		default:
			return false
		}
	})
	return message
}

// A peer outside the mesh hears the ids of messages: both sides must compute the same.
func TestAMessageIsAnnouncedByItsID(t *testing.T) {
	node, roomID, _ := roomWithMember(t)
	h, ctx := newHost(t, dialerIP), inTime(t)
	told := &told{ids: map[string]bool{}}
	// Without a mesh of its own it refuses to be taken into the node's.
	params := pubsub.DefaultGossipSubParams()
	params.D, params.Dlo, params.Dhi, params.Dscore, params.Dout = 0, 0, 0, 0, 0
	gossip := newGossip(t, h,
		pubsub.WithGossipSubParams(params), pubsub.WithAppSpecificRpcInspector(told.inspect))
	_, subscription := subscribe(t, gossip, roomID)
	must(t, h.Connect(ctx, node.info()))
	message := sayUntilHeard(ctx, t, node, roomID, subscription)
	// The author sends to all neighbours at once; the announcement follows with the next heartbeat.
	eventually(t, "the node tells the id of the message that came", func() bool {
		return told.has(messageID(message.Message))
	})
}

// told holds the message ids that IHAVE named.
type told struct {
	mutex sync.Mutex
	ids   map[string]bool
}

func (s *told) inspect(_ peer.ID, rpc *pubsub.RPC) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, have := range rpc.GetControl().GetIhave() {
		for _, id := range have.GetMessageIDs() {
			s.ids[id] = true
		}
	}
	return nil
}

func (s *told) has(id string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.ids[id]
}
