package interop

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/gostream"
)

// client speaks HTTP/2 with prior knowledge over streams of a libp2p host. The host of a URL is the
// PeerId, which is case-sensitive and therefore given here.
func client(h host.Host, to peer.ID) *http.Client {
	transport := &http.Transport{
		Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return gostream.Dial(ctx, h, to, "/messagehub/s2s/1")
		},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: transport, Timeout: deadline}
}

// identityKey reads the key out of a server name: base32 of a CIDv1 with an identity multihash.
func identityKey(t *testing.T, name string) ed25519.PublicKey {
	bytes, err := base32Lower.DecodeString(strings.TrimPrefix(name, "b"))
	must(t, err)
	prefix := []byte{0x01, 0xed, 0x01, 0x00, 0x20}
	if len(bytes) != 37 || !slices.Equal(bytes[:5], prefix) {
		t.Fatalf("%s is no server name", name)
	}
	return bytes[5:]
}

// canonical is canonical JSON of values that hold no number beyond 2^53 and no character that needs
// an escape: Go sorts keys by bytes, which is by code points.
func canonical(t *testing.T, value any) []byte {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	must(t, encoder.Encode(value))
	return []byte(strings.TrimSuffix(text.String(), "\n"))
}

// parse reads JSON and keeps numbers as they are written.
func parse(t *testing.T, text string) object {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value object
	must(t, decoder.Decode(&value))
	return value
}

// checkServerKeys verifies server_keys with nothing but their name.
func checkServerKeys(t *testing.T, name string, keys object) {
	signatures := keys["signatures"].(object)[name].(object)
	text := canonical(t, without(keys, "signatures"))
	verify := func(id string, key ed25519.PublicKey) {
		signature, err := base64Plain.DecodeString(signatures[id].(string))
		must(t, err)
		if !ed25519.Verify(key, text, signature) {
			t.Errorf("the signature by %s is wrong", id)
		}
	}
	if keys["server_name"] != name {
		t.Errorf("they are of %v", keys["server_name"])
	}
	verify("ed25519:identity", identityKey(t, name))
	for id, value := range keys["verify_keys"].(object) {
		key, err := base64Plain.DecodeString(value.(object)["key"].(string))
		must(t, err)
		verify(id, key)
	}
}

func TestServerKeysProveThemselves(t *testing.T) {
	node := startNode(t, nodeIP)
	h, self, info := newHost(t, dialerIP), node.status(), node.info()
	must(t, h.Connect(inTime(t), info))
	get := func(path string) (int, string) {
		response, err := client(h, info.ID).Get("http://node" + path)
		must(t, err)
		defer response.Body.Close()
		if response.ProtoMajor != 2 {
			t.Errorf("%s came over %s", path, response.Proto)
		}
		body, err := io.ReadAll(response.Body)
		must(t, err)
		return response.StatusCode, string(body)
	}

	code, body := get("/_matrix/key/v2/server")
	if code != http.StatusOK {
		t.Fatalf("%d: %s", code, body)
	}
	keys := parse(t, body)
	checkServerKeys(t, self.ServerName, keys)
	if !slices.Contains(keys["peer_ids"].([]any), any(self.PeerID)) {
		t.Errorf("%v do not list %s", keys["peer_ids"], self.PeerID)
	}

	for path, expected := range map[string]int{
		"/_matrix/federation/v1/version":               http.StatusOK,
		"/_matrix/client/versions":                     http.StatusNotFound,
		"/_matrix/client/v3/login":                     http.StatusNotFound,
		"/_matrix/media/v3/config":                     http.StatusNotFound,
		"/_synapse/admin/v1/users":                     http.StatusNotFound,
		"/health":                                      http.StatusNotFound,
		"/metrics":                                     http.StatusNotFound,
		"/_matrix/federation/v1/publicRooms":           http.StatusUnauthorized,
		"/_matrix/key/v2/server/../../client/versions": http.StatusNotFound,
	} {
		if code, body := get(path); code != expected {
			t.Errorf("%s: %d instead of %d: %s", path, code, expected, body)
		}
	}
}
