//! Starts and stops the daemon.
