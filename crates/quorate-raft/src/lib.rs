//! The embedded ledger: a Raft library, its log on disk, its transport and membership.
