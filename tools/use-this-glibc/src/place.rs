//! Where the result goes. The only module that writes files.
