package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// How long anything may take before a test gives up.
const deadline = 30 * time.Second

// A node is a running messagehub with open registration.
type node struct {
	t      *testing.T
	data   string
	client string // base URL of the Client-Server API
	token  string // of an account made by register
}

// What `messagehub status --json` says, as far as these tests read it.
type status struct {
	ServerName string   `json:"server_name"`
	PeerID     string   `json:"peer_id"`
	Addresses  []string `json:"addresses"`

	Reachability struct {
		Kind string `json:"kind"`
	} `json:"reachability"`
}

// binary is MESSAGEHUB_BIN, or the debug build of the tree.
func binary(t *testing.T) string {
	path := os.Getenv("MESSAGEHUB_BIN")
	if path == "" {
		path = "../../target/debug/messagehub"
	}
	path, err := filepath.Abs(path)
	must(t, err)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: build it first: cargo build --bin messagehub", err)
	}
	return path
}

// startNode runs messagehub on an address, with more of its environment variables if they are given.
func startNode(t *testing.T, ip string, environment ...string) *node {
	n := &node{t: t, data: t.TempDir()}
	log, err := os.Create(filepath.Join(n.data, "log"))
	must(t, err)
	command := n.command("run", "--listen", "127.0.0.1:0")
	command.Env = append(command.Env,
		"MESSAGEHUB_REGISTRATION=open",
		"MESSAGEHUB_RATE_LIMITS=null",
		"MESSAGEHUB_LIBP2P_MDNS=false",
		"MESSAGEHUB_LIBP2P_LISTEN_ADDRESSES=/ip4/"+ip+"/tcp/0,/ip4/"+ip+"/udp/0/quic-v1",
	)
	command.Env = append(command.Env, environment...)
	command.Stdout, command.Stderr = log, log
	must(t, command.Start())
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-ended
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("log of the node:\n%s", text)
		}
		_ = log.Close()
	})
	eventually(t, "the node starts", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the node ended: %v", err)
		default:
		}
		_, err := os.Stat(filepath.Join(n.data, "admin.address"))
		return err == nil
	})
	address, err := os.ReadFile(filepath.Join(n.data, "listen.address"))
	must(t, err)
	n.client = "http://" + strings.TrimSpace(string(address))
	return n
}

func (n *node) command(arguments ...string) *exec.Cmd {
	command := exec.Command(binary(n.t), append([]string{"--data", n.data}, arguments...)...)
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "MESSAGEHUB_") {
			command.Env = append(command.Env, variable)
		}
	}
	return command
}

func (n *node) status() status {
	output, err := n.command("status", "--json").Output()
	must(n.t, err)
	var s status
	must(n.t, json.Unmarshal(output, &s))
	return s
}

// info is where the node listens, for go-libp2p.
func (n *node) info() peer.AddrInfo {
	s := n.status()
	id, err := peer.Decode(s.PeerID)
	must(n.t, err)
	info := peer.AddrInfo{ID: id}
	for _, text := range s.Addresses {
		address, err := ma.NewMultiaddr(text)
		must(n.t, err)
		info.Addrs = append(info.Addrs, address)
	}
	return info
}

// over keeps the addresses of one transport: "tcp" or "udp".
func over(info peer.AddrInfo, transport string) peer.AddrInfo {
	kept := peer.AddrInfo{ID: info.ID}
	for _, address := range info.Addrs {
		if strings.Contains(address.String(), "/"+transport+"/") {
			kept.Addrs = append(kept.Addrs, address)
		}
	}
	return kept
}

// register makes an account, as which ask speaks from then on. It gives the user id.
func (n *node) register(name string) string {
	account := n.ask(http.MethodPost, "/register", object{
		"username": name, "password": "correct horse battery", "auth": object{"type": "m.login.dummy"},
	})
	n.token = account["access_token"].(string)
	return account["user_id"].(string)
}

// An object of JSON.
type object = map[string]any

// ask sends a request of the Client-Server API that must succeed.
func (n *node) ask(method, path string, body any) object {
	n.t.Helper()
	text, err := json.Marshal(body)
	must(n.t, err)
	request, err := http.NewRequest(method, n.client+"/_matrix/client/v3"+path, bytes.NewReader(text))
	must(n.t, err)
	if n.token != "" {
		request.Header.Set("Authorization", "Bearer "+n.token)
	}
	response, err := http.DefaultClient.Do(request)
	must(n.t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	must(n.t, err)
	if response.StatusCode != http.StatusOK {
		n.t.Fatalf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	var parsed object
	must(n.t, json.Unmarshal(answer, &parsed))
	return parsed
}

// createRoom gives the id of a new room.
func (n *node) createRoom(body object) string {
	return n.ask(http.MethodPost, "/createRoom", body)["room_id"].(string)
}

// say sends a text to a room and gives the id of its event.
func (n *node) say(roomID, text string) string {
	path := fmt.Sprintf("/rooms/%s/send/m.room.message/%d", url.PathEscape(roomID), time.Now().UnixNano())
	return n.ask(http.MethodPut, path, object{"msgtype": "m.text", "body": text})["event_id"].(string)
}

// newHost is a libp2p host on an address, over TCP and QUIC.
func newHost(t *testing.T, ip string, options ...libp2p.Option) host.Host {
	listen := libp2p.ListenAddrStrings("/ip4/"+ip+"/tcp/0", "/ip4/"+ip+"/udp/0/quic-v1")
	h, err := libp2p.New(append([]libp2p.Option{listen, libp2p.DisableMetrics()}, options...)...)
	must(t, err)
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// address is a full multiaddr of a host over TCP, for the configuration of a node.
func address(t *testing.T, h host.Host) string {
	for _, a := range h.Addrs() {
		if strings.Contains(a.String(), "/tcp/") {
			return a.String() + "/p2p/" + h.ID().String()
		}
	}
	t.Fatal("the host has no TCP address")
	return ""
}

func inTime(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, look func() bool) {
	t.Helper()
	end := time.After(deadline)
	for !look() {
		select {
		case <-end:
			t.Fatalf("%s: not within %v", what, deadline)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
