//! Measurements of quorate beside its peers and beside what the machine can do at best. Each is a binary
//! of its own that prints one table; none is a test, since a shared machine passes and fails by luck.
