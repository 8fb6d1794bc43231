//! What homeservers log as errors: an error nobody caused on purpose is a failed run.

use std::{
    cell::RefCell,
    io::{self, Write},
    rc::Rc,
};

use tracing::{Level, Metadata, subscriber::DefaultGuard};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// The most that is kept, in bytes: the first errors say most.
const MAX_KEPT: usize = 4_000;

thread_local! {
    static KEPT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Listens as long as it lives, on this thread.
pub(crate) struct Errors {
    _guard: DefaultGuard,
    // The guard is of this thread.
    _here: Rc<()>,
}

impl Errors {
    /// Starts. With `SIM_LOG` set (a filter such as `debug`), everything it names goes to
    /// standard error too.
    pub(crate) fn listen() -> Self {
        KEPT.with_borrow_mut(Vec::clear);
        let loud = std::env::var("SIM_LOG").ok();
        let filter = EnvFilter::new(loud.clone().unwrap_or_else(|| "error".to_owned()));
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .without_time()
            .with_ansi(false)
            .with_writer(Keeper { loud: loud.is_some() })
            .finish();
        Self { _guard: tracing::subscriber::set_default(subscriber), _here: Rc::new(()) }
    }

    /// What was logged as an error since the start.
    pub(crate) fn take(&self) -> String {
        String::from_utf8_lossy(&KEPT.take()).trim().to_owned()
    }
}

struct Keeper {
    loud: bool,
}

struct Line {
    keep: bool,
    loud: bool,
}

impl<'a> MakeWriter<'a> for Keeper {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { keep: false, loud: self.loud }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line { keep: *meta.level() == Level::ERROR, loud: self.loud }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.keep {
            KEPT.with_borrow_mut(|kept| {
                if kept.len() < MAX_KEPT {
                    kept.extend_from_slice(bytes);
                }
            });
        }
        if self.loud {
            io::stderr().write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
