package interop

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Marks the process that TestMain started inside the namespace.
const insideVariable = "INTEROP_INSIDE"

// Addresses of the namespace's loopback interface. No private or reserved block would do: libp2p
// punches holes only between addresses that it takes for public.
const (
	relayIP  = "25.0.0.1"
	nodeIP   = "25.0.0.2"
	dialerIP = "25.0.0.3"
)

// TestMain runs the tests in a network namespace of their own.
func TestMain(m *testing.M) {
	if os.Getenv(insideVariable) != "" {
		os.Exit(inside(m))
	}
	if os.Getenv("MESSAGEHUB_SKIP_NAMESPACES") == "1" {
		fmt.Println("SKIPPED: every interop test, as MESSAGEHUB_SKIP_NAMESPACES=1 asks")
		os.Exit(0)
	}
	command := exec.Command("/proc/self/exe", os.Args[1:]...)
	command.Env = append(os.Environ(), insideVariable+"=1")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := command.Run(); err != nil {
		fmt.Println("interop:", err)
		if _, ran := err.(*exec.ExitError); !ran {
			fmt.Println("NO NETWORK NAMESPACE COULD BE MADE: this needs root on Linux;",
				"MESSAGEHUB_SKIP_NAMESPACES=1 skips these tests")
		}
		os.Exit(1)
	}
}

func inside(m *testing.M) int {
	setUp := []string{"link set lo up"}
	for _, ip := range []string{relayIP, nodeIP, dialerIP} {
		setUp = append(setUp, "addr add "+ip+"/32 dev lo")
	}
	for _, arguments := range setUp {
		output, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput()
		if err != nil {
			fmt.Printf("ip %s: %v: %s\n", arguments, err, output)
			return 1
		}
	}
	return m.Run()
}
