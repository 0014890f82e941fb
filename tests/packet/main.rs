//! The `packet` room from outside: etherparse builds the packets and judges what became of them.

mod answer;
mod cross;
mod cut;
mod malformed;
mod mss;
mod parse;
mod rewrite;
mod sample;
