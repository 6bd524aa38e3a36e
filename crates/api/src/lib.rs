//! What the HTTP API says: types shared by agent and command line.
