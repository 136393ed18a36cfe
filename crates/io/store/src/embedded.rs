//! The embedded engine: an own log on a [`Disk`], the present value of each key in memory, older ones read from the log.
//!
//! ```text
//! Embedded (any thread) --queue--> Writer (one blocking thread, or the simulation's loop)
//!    reads, watches                   Engine: evaluate -> Log: one frame, one fdatasync -> publish -> answer
//!         \____________ State (read-write lock, never held over I/O) ___________/
//! ```
//!
//! Files: `log-N` (preallocated segments of frames, see `frame`), `snapshot-R` (the state at revision R; segments that only
//! hold older revisions are gone), `reserve` (becomes a segment for deletes when the disk is full), `*.tmp` (unfinished).

mod clean;
mod engine;
mod frame;
mod front;
mod log;
mod open;
mod record;
mod snapshot;
mod state;
mod watch;

pub use engine::{Answer, Engine, Flushed, Ticket};
pub use front::{Embedded, Wait, Writer};
pub use open::OpenError;

/// Largest transaction, keys and values together; etcd's `--max-request-bytes`.
pub const MAX_TXN_BYTES: usize = 1_572_864;

/// Sizes; the defaults are for production, tests take smaller ones.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Preallocated at once.
    pub segment_bytes: u64,
    /// Kept for deletes on a full disk.
    pub reserve_bytes: u64,
    /// A compaction writes a snapshot when the log is larger than twice the live data plus this.
    pub garbage_bytes: u64,
    /// Recent events kept in memory for watchers.
    pub recent_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 8 << 20, reserve_bytes: 1 << 20, garbage_bytes: 16 << 20, recent_bytes: 1 << 20 }
    }
}
