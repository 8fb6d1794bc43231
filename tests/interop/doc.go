// Package interop holds tests that drive the real messagehub binary with go-libp2p, which shares no
// code with it. What they know of MessageHub's own formats they know from docs/wire.md alone.
//
// Run them with `cargo xtask interop`, which builds the binary first. They run on the loopback
// interface of a network namespace of their own, so that it can carry addresses that look public and
// that nothing leaves the machine. That needs root on Linux and the command ip;
// MESSAGEHUB_SKIP_NAMESPACES=1 skips all of them where that is not to be had.
package interop
