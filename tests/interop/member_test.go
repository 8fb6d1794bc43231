package interop

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/gostream"
	"golang.org/x/crypto/chacha20poly1305"
)

var (
	base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	base64Plain = base64.RawStdEncoding
	base64URL   = base64.RawURLEncoding
)

// A member is a homeserver with one user, as small as one can be that takes part in a room of
// version 12.
type member struct {
	t                *testing.T
	host             host.Host
	gossip           *pubsub.PubSub
	name, user       string
	identity, verify ed25519.PrivateKey
	keyID            string
	keys             object            // our server_keys
	sealingKey       []byte            // with which we seal frames, for any room
	known            map[string][]byte // sealing keys of others by id

	mutex    sync.Mutex
	lastTime int64
}

// newMember makes the keys of a server and serves what nodes ask it for.
func newMember(t *testing.T, ip string) *member {
	h := newHost(t, ip)
	m := &member{t: t, host: h, gossip: newGossip(t, h), known: map[string][]byte{}, sealingKey: make([]byte, 32)}
	var identity ed25519.PublicKey
	var verify ed25519.PublicKey
	identity, m.identity, _ = ed25519.GenerateKey(rand.Reader)
	verify, m.verify, _ = ed25519.GenerateKey(rand.Reader)
	_, _ = rand.Read(m.sealingKey)
	m.name = "b" + base32Lower.EncodeToString(append([]byte{0x01, 0xed, 0x01, 0x00, 0x20}, identity...))
	m.user = "@gopher:" + m.name
	hash := sha256.Sum256(verify)
	m.keyID = "ed25519:" + base32Lower.EncodeToString(hash[:10])
	now := time.Now().UnixMilli()
	m.keys = object{
		"server_name":     m.name,
		"verify_keys":     object{m.keyID: object{"key": base64Plain.EncodeToString(verify)}},
		"old_verify_keys": object{},
		"peer_ids":        []any{m.host.ID().String()},
		"issued_ts":       now,
		"valid_until_ts":  now + 24*time.Hour.Milliseconds(),
	}
	text := canonical(t, m.keys)
	m.keys["signatures"] = object{m.name: object{
		"ed25519:identity": base64Plain.EncodeToString(ed25519.Sign(m.identity, text)),
		m.keyID:            base64Plain.EncodeToString(ed25519.Sign(m.verify, text)),
	}}
	m.serve()
	return m
}

// serve answers what others ask a server for, as far as these tests need it.
func (m *member) serve() {
	listener, err := gostream.Listen(m.host, "/messagehub/s2s/1")
	must(m.t, err)
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, value any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(value)
	}
	mux.HandleFunc("GET /_matrix/key/v2/server", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, m.keys)
	})
	mux.HandleFunc("POST /_matrix/federation/unstable/net.messagehub/room_keys",
		func(w http.ResponseWriter, _ *http.Request) {
			key := object{"owner": m.name, "key": base64Plain.EncodeToString(m.sealingKey), "after": []any{}}
			answer(w, object{"keys": []any{key}})
		})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		answer(w, object{"errcode": "M_UNRECOGNIZED", "error": "not here"})
	})
	server := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = server.Serve(listener) }()
	m.t.Cleanup(func() { _ = server.Close() })
}

// now gives a time that was not given before.
func (m *member) now() int64 {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.lastTime = max(m.lastTime+1, time.Now().UnixMilli())
	return m.lastTime
}

// sign gives the signature of an object by the verify key.
func (m *member) sign(value object) string {
	unsigned := without(value, "signatures", "unsigned")
	return base64Plain.EncodeToString(ed25519.Sign(m.verify, canonical(m.t, unsigned)))
}

// try sends a signed request of the Server-Server API.
func (m *member) try(to *node, method, uri string, body object) (int, object) {
	self, now := to.status(), m.now()
	signed := object{
		"destination": self.ServerName, "method": method, "origin": m.name, "origin_server_ts": now, "uri": uri,
	}
	var content io.Reader
	if body != nil {
		signed["content"] = body
		content = bytes.NewReader(canonical(m.t, body))
	}
	request, err := http.NewRequest(method, "http://node"+uri, content)
	must(m.t, err)
	request.Header.Set("Authorization", fmt.Sprintf(
		`X-Matrix origin="%s",destination="%s",key="%s",sig="%s",origin_server_ts="%d"`,
		m.name, self.ServerName, m.keyID, m.sign(signed), now))
	request.Header.Set("X-Matrix-Server-Keys", base64Plain.EncodeToString(canonical(m.t, m.keys)))
	id, err := peer.Decode(self.PeerID)
	must(m.t, err)
	response, err := client(m.host, id).Do(request)
	must(m.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(m.t, err)
	return response.StatusCode, parse(m.t, string(text))
}

// request sends one that must succeed.
func (m *member) request(to *node, method, uri string, body object) object {
	m.t.Helper()
	code, answer := m.try(to, method, uri, body)
	if code != http.StatusOK {
		m.t.Fatalf("%s %s: %d: %v", method, uri, code, answer)
	}
	return answer
}

// A joined room, as far as it takes to say something in it.
type joined struct {
	id     string
	auth   []any // the events that allow us to speak
	head   string
	depth  int64
	member *member
}

// join joins a room through a node: Server-Server API, "Joining Rooms".
func (m *member) join(through *node, roomID string) *joined {
	room, user := url.PathEscape(roomID), url.PathEscape(m.user)
	made := m.request(through, http.MethodGet, "/_matrix/federation/v1/make_join/"+room+"/"+user+"?ver=12", nil)
	event := made["event"].(object)
	event["origin_server_ts"] = m.now()
	id := m.complete(event)
	uri := "/_matrix/federation/v2/send_join/" + room + "/" + url.PathEscape(id)
	sent := m.request(through, http.MethodPut, uri, event)
	r := &joined{id: roomID, head: id, auth: []any{id}, member: m}
	r.depth, _ = event["depth"].(json.Number).Int64()
	for _, state := range sent["state"].([]any) {
		if state := state.(object); state["type"] == "m.room.power_levels" {
			r.auth = append(r.auth, eventID(m.t, state))
		}
	}
	return r
}

// complete adds hash and signature to an event, and gives its id.
func (m *member) complete(event object) string {
	hash := sha256.Sum256(canonical(m.t, without(event, "signatures", "unsigned", "hashes")))
	event["hashes"] = object{"sha256": base64Plain.EncodeToString(hash[:])}
	event["signatures"] = object{m.name: object{m.keyID: m.sign(redacted(event))}}
	return eventID(m.t, event)
}

// eventID is the reference hash of an event.
func eventID(t *testing.T, event object) string {
	hash := sha256.Sum256(canonical(t, without(redacted(event), "signatures", "unsigned")))
	return "$" + base64URL.EncodeToString(hash[:])
}

// redacted leaves what the redaction algorithm of room version 12 leaves, of the types used here.
func redacted(event object) object {
	contents := map[string][]string{
		"m.room.member": {"membership", "join_authorised_via_users_server"},
		"m.room.power_levels": {"ban", "events", "events_default", "invite", "kick", "redact",
			"state_default", "users", "users_default"},
	}
	left := only(event, "type", "room_id", "sender", "state_key", "content", "hashes", "signatures",
		"depth", "prev_events", "auth_events", "origin_server_ts")
	kind, _ := event["type"].(string)
	left["content"] = only(event["content"].(object), contents[kind]...)
	return left
}

func only(value object, keys ...string) object {
	left := object{}
	for key, item := range value {
		if slices.Contains(keys, key) {
			left[key] = item
		}
	}
	return left
}

func without(value object, keys ...string) object {
	left := object{}
	for key, item := range value {
		if !slices.Contains(keys, key) {
			left[key] = item
		}
	}
	return left
}

// frame is a sealed frame with a text of ours.
func (r *joined) frame(text string) (sealed []byte, id string) {
	m := r.member
	event := object{
		"type": "m.room.message", "room_id": r.id, "sender": m.user,
		"content": object{"msgtype": "m.text", "body": text}, "depth": r.depth + 1,
		"prev_events": []any{r.head}, "auth_events": r.auth, "origin_server_ts": m.now(),
	}
	id = m.complete(event)
	frame := object{
		"v": 1, "method": "PUT", "uri": "/_matrix/federation/v1/send/go", "origin": m.name,
		"origin_server_ts": m.now(), "destination": r.id, "server_keys": []any{m.keys},
		"content": object{"pdus": []any{event}, "edus": []any{}},
	}
	frame["signatures"] = object{m.name: object{m.keyID: m.sign(frame)}}
	return m.seal(r.id, canonical(m.t, frame)), id
}

// The sizes of a sealed frame's parts: docs/wire.md, "Sealed frames".
const keyIDBytes, nonceBytes = 20, chacha20poly1305.NonceSizeX

// sealingKeyID is a hash of a key, of whose it is, and of the room it is for.
func sealingKeyID(owner, roomID string, key []byte) []byte {
	hash := sha256.Sum256([]byte("messagehub room key 1\x00" + owner + "\x00" + roomID + "\x00" + string(key)))
	return hash[:keyIDBytes]
}

func (m *member) seal(roomID string, frame []byte) []byte {
	id, nonce := sealingKeyID(m.name, roomID, m.sealingKey), make([]byte, nonceBytes)
	_, _ = rand.Read(nonce)
	cipher, err := chacha20poly1305.NewX(m.sealingKey)
	must(m.t, err)
	sealed := slices.Concat([]byte{2}, id, nonce)
	return cipher.Seal(sealed, nonce, frame, slices.Concat([]byte{2}, []byte(topicOf(roomID)), id))
}

// open gives the frame in sealed bytes, whose key it asks the node for when it lacks it.
func (m *member) open(from *node, roomID string, sealed []byte) (object, error) {
	id, rest := sealed[1:1+keyIDBytes], sealed[1+keyIDBytes:]
	key, ok := m.known[string(id)]
	if !ok {
		var err error
		if key, err = m.fetchKey(from, roomID, id); err != nil {
			return nil, err
		}
		m.known[string(id)] = key
	}
	cipher, err := chacha20poly1305.NewX(key)
	must(m.t, err)
	extra := slices.Concat(sealed[:1], []byte(topicOf(roomID)), id)
	frame, err := cipher.Open(nil, rest[:nonceBytes], rest[nonceBytes:], extra)
	if err != nil {
		return nil, err
	}
	return parse(m.t, string(frame)), nil
}

var errNoKey = errors.New("the node gives no key")

func (m *member) fetchKey(from *node, roomID string, id []byte) ([]byte, error) {
	body := object{"room_id": roomID, "key_ids": []any{base64URL.EncodeToString(id)}}
	code, answer := m.try(from, http.MethodPost, "/_matrix/federation/unstable/net.messagehub/room_keys", body)
	keys, _ := answer["keys"].([]any)
	if code == http.StatusForbidden || (code == http.StatusOK && len(keys) == 0) {
		return nil, errNoKey
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("asked for a key: %d: %v", code, answer)
	}
	key, err := base64Plain.DecodeString(keys[0].(object)["key"].(string))
	must(m.t, err)
	if owner := keys[0].(object)["owner"].(string); !bytes.Equal(sealingKeyID(owner, roomID, key), id) {
		m.t.Errorf("the key that came is not the one with this id")
	}
	return key, nil
}

func TestAServerOfAStrangersHandTalksInARoom(t *testing.T) {
	node, roomID, room := roomWithMember(t)
	m, ctx := room.member, inTime(t)
	topic, heard := subscribe(t, m.gossip, roomID)

	// What a client of the node says is read in Go.
	message := sayUntilHeard(ctx, t, node, roomID, heard)
	frame, err := m.open(node, roomID, message.Data)
	must(t, err)
	event := frame["content"].(object)["pdus"].([]any)[0].(object)
	if event["sender"] != "@anna:"+node.status().ServerName || event["content"].(object)["body"] != secret {
		t.Errorf("the event in the frame is %v", event)
	}
	checkFrame(t, frame)
	room.head = eventID(t, event)
	room.depth, _ = event["depth"].(json.Number).Int64()

	// What Go says is read by a client of the node.
	sealed, id := room.frame("hello from Go")
	must(t, topic.Publish(ctx, sealed))
	eventually(t, "the client reads it", func() bool {
		path := "/rooms/" + url.PathEscape(roomID) + "/messages?dir=b&limit=20"
		for _, event := range node.ask(http.MethodGet, path, object{})["chunk"].([]any) {
			event := event.(object)
			if event["event_id"] == id {
				return event["sender"] == m.user && event["content"].(object)["body"] == "hello from Go"
			}
		}
		return false
	})
}

// checkFrame verifies who signed a frame: docs/wire.md, "Gossip".
func checkFrame(t *testing.T, frame object) {
	origin := frame["origin"].(string)
	for _, keys := range frame["server_keys"].([]any) {
		if keys := keys.(object); keys["server_name"] == origin {
			checkServerKeys(t, origin, keys)
			for id, signature := range frame["signatures"].(object)[origin].(object) {
				key, err := base64Plain.DecodeString(keys["verify_keys"].(object)[id].(object)["key"].(string))
				must(t, err)
				bytes, err := base64Plain.DecodeString(signature.(string))
				must(t, err)
				if !ed25519.Verify(key, canonical(t, without(frame, "signatures")), bytes) {
					t.Error("the signature of the frame is wrong")
				}
				return
			}
		}
	}
	t.Error("the frame does not bring the keys of its origin")
}

// A banned server that keeps its subscription gets frames; what it cannot get is their key.
func TestABannedServerReadsNothingMore(t *testing.T) {
	node, roomID, room := roomWithMember(t)
	m, ctx := room.member, inTime(t)
	_, heard := subscribe(t, m.gossip, roomID)
	before := sayUntilHeard(ctx, t, node, roomID, heard)
	_, err := m.open(node, roomID, before.Data)
	must(t, err)
	// Somebody must be left to whom the node has something to say.
	other := newMember(t, relayIP)
	must(t, other.host.Connect(ctx, node.info()))
	other.join(node, roomID)

	node.ask(http.MethodPost, "/rooms/"+url.PathEscape(roomID)+"/ban", object{"user_id": m.user})
	node.say(roomID, "not for you")
	for {
		message, err := heard.Next(ctx)
		if err != nil {
			t.Fatalf("no frame under another key came after the ban: %v", err)
		}
		frame, err := m.open(node, roomID, message.Data)
		if errors.Is(err, errNoKey) {
			return
		}
		must(t, err)
		if text := string(canonical(t, frame)); strings.Contains(text, "not for you") {
			t.Fatalf("it could be read: %s", text)
		}
	}
}
