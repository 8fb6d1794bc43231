//! Who brought frames that any honest peer could see to be bad.
//!
//! We count this ourselves and tell gossipsub the sum. It would count for each topic, and add up all
//! topics of a peer each time it looks at one: with 5,000 shared rooms a new connection took it
//! seconds, in which nothing else moved.

use std::collections::HashMap;

use libp2p::PeerId;
use tokio::time::{Duration, Instant};

/// The score of one bad frame; the number of frames is squared: one may be a bug, ten are not.
const WEIGHT: f64 = -10.0;

/// What a bad frame counts after each decay interval: a tenth is left after five minutes.
const DECAY: f64 = 0.926;

/// How often faults decay.
const DECAY_INTERVAL: Duration = Duration::from_secs(10);

/// Less than this of a frame is forgotten.
const FORGOTTEN: f64 = 0.1;

/// Peers that are remembered. Each brought a bad frame over a connection lately; one more is let go.
const MAX_PEERS: usize = 4_096;

/// Bad frames by peer, weighted by age.
#[derive(Debug)]
pub(crate) struct Faults {
    frames: HashMap<PeerId, f64>,
    decay_at: Instant,
}

impl Faults {
    pub(crate) fn new(now: Instant) -> Self {
        Self { frames: HashMap::new(), decay_at: now + DECAY_INTERVAL }
    }

    /// Counts a bad frame; gives the peer's score.
    pub(crate) fn count(&mut self, peer: PeerId) -> f64 {
        if self.frames.len() >= MAX_PEERS && !self.frames.contains_key(&peer) {
            return score(1.0);
        }
        let frames = self.frames.entry(peer).or_default();
        *frames += 1.0;
        score(*frames)
    }

    /// Lets faults fade when it is time for that. Gives the scores that changed.
    pub(crate) fn fade(&mut self, now: Instant) -> Vec<(PeerId, f64)> {
        if now < self.decay_at {
            return Vec::new();
        }
        self.decay_at = now + DECAY_INTERVAL;
        let faded = self.frames.iter_mut().map(|(peer, frames)| {
            *frames *= DECAY;
            if *frames < FORGOTTEN {
                *frames = 0.0;
            }
            (*peer, score(*frames))
        });
        let scores = faded.collect();
        self.frames.retain(|_, frames| *frames > 0.0);
        scores
    }
}

fn score(frames: f64) -> f64 {
    WEIGHT * frames * frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_bad_frames_count_more_than_their_number_and_fade() {
        let mut now = Instant::now();
        let (mut faults, peer) = (Faults::new(now), PeerId::random());
        let scores: Vec<f64> = (0..10).map(|_| faults.count(peer)).collect();
        assert_eq!((scores[0], scores[2], scores[9]), (-10.0, -90.0, -1000.0));
        assert!(faults.fade(now).is_empty());
        for _ in 0..30 {
            now += DECAY_INTERVAL;
            assert_eq!(faults.fade(now).len(), 1);
        }
        let again = faults.count(peer);
        assert!((-50.0..-30.0).contains(&again), "a tenth of ten, and one more: {again}");
        for _ in 0..60 {
            now += DECAY_INTERVAL;
            faults.fade(now);
        }
        assert!(faults.frames.is_empty());
    }
}
