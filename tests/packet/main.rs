//! The `packet` room from outside: etherparse builds the packets and judges what became of them, rustls does the hellos.

mod answer;
mod client_hello;
mod cross;
mod cut;
mod malformed;
mod merge;
mod mss;
mod parse;
mod request_head;
mod rewrite;
mod sample;
mod server_name;
