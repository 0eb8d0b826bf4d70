//! Scripts of the director's machine.
