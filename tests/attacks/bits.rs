//! Every byte of a message counts, in both framings; and what is refused early costs little.

use std::time::{Duration, Instant};

use inferq::envelope::{OpenPolicy, UnixSeconds, open_request};
use inferq::error::ErrorCode;
use inferq::protocol::properties::Message;

use super::forge::{Forgery, StolenKey};
use super::house::{House, TENANT};
use super::text_request;

fn policy(house: &House) -> OpenPolicy {
    let limits = &house.settings.limits;
    OpenPolicy {
        audience: house.settings.service.audience.clone(),
        max_lifetime: limits.max_lifetime,
        clock_skew: limits.clock_skew,
        max_body_bytes: limits.max_body_bytes,
        max_plaintext_bytes: limits.max_plaintext_bytes,
    }
}

fn forgery(house: &House, binary: bool, plaintext: &str) -> Forgery {
    let key = StolenKey::read(house.ring(), TENANT, "request.jwk");
    Forgery { binary, ..Forgery::honest(&key, "1", "acme.replies", plaintext) }
}

#[tokio::test]
async fn no_byte_can_be_changed_left_out_or_added() {
    let house = House::build();
    let (ring, policy) = (house.parts.keyring.current(), policy(&house));
    for binary in [false, true] {
        let good = forgery(&house, binary, &text_request("hockey")).seal();
        let refused = |body: Vec<u8>, what: &str| {
            let message = Message { body: body.into(), properties: good.properties.clone() };
            match open_request(&ring, &policy, &message, UnixSeconds::now()) {
                Ok(_) => panic!("binary {binary}: {what} opens"),
                Err(rejection) => {
                    assert_eq!(rejection.code, ErrorCode::EnvelopeRejected, "binary {binary}: {what}");
                    assert!(rejection.reply.is_none(), "binary {binary}: {what} is answered");
                    rejection.reason
                }
            }
        };
        assert!(open_request(&ring, &policy, &good, UnixSeconds::now()).is_ok(), "else nothing is shown");
        let mut faces = std::collections::BTreeSet::new();
        for at in 0..good.body.len() {
            for bit in 0..8 {
                let mut body = good.body.to_vec();
                body[at] ^= 1 << bit;
                faces.insert(refused(body, &format!("bit {bit} of byte {at}")));
            }
            let mut shorter = good.body.to_vec();
            shorter.remove(at);
            faces.insert(refused(shorter, &format!("byte {at} left out")));
            faces.insert(refused(good.body[..at].to_vec(), &format!("cut to {at}")));
            let mut longer = good.body.to_vec();
            longer.insert(at, b'A');
            faces.insert(refused(longer, &format!("a byte at {at}")));
        }
        assert_eq!(faces.len(), 1, "one face: {faces:?}");
    }
}

#[tokio::test]
async fn a_bogus_key_id_costs_the_same_however_large_the_body_is() {
    let house = House::build();
    let (ring, policy) = (house.parts.keyring.current(), policy(&house));
    // The least of many is what the work costs; everything above it is the machine's.
    let least = |message: &Message| {
        let tries = (0..200).map(|_| {
            let began = Instant::now();
            drop(open_request(&ring, &policy, message, UnixSeconds::now()));
            began.elapsed()
        });
        tries.min().unwrap_or(Duration::MAX)
    };
    for binary in [false, true] {
        let bogus = |bytes: usize| {
            let forgery = forgery(&house, binary, &"x".repeat(bytes));
            least(&forgery.with("kid", "acme.req.AAAAAAAAAAAAAAAA").seal())
        };
        let (small, large) = (bogus(200), bogus(600 << 10));
        assert!(large < small * 3, "binary {binary}: {large:?} for 600 KiB, {small:?} for 200 bytes");
    }
}
