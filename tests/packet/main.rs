//! The `packet` room from outside: etherparse builds the packets and judges what became of them.

mod answer;
mod cut;
mod malformed;
mod parse;
mod rewrite;
mod sample;
