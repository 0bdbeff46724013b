//! The server over loopback, with a prepared driver.
