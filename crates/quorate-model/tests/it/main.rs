//! Everything is searched, at a small size: what holds with all rules, and what breaks without each.

mod ablations;
mod leases;
mod patient;
