//! From when until when a certificate counts. Of its DER only the way to the two dates is read:
//!
//! ```text
//! Certificate     SEQUENCE { tbsCertificate SEQUENCE {
//!   version       [0] …            left out in version 1
//!   serialNumber  INTEGER
//!   signature     SEQUENCE
//!   issuer        SEQUENCE
//!   validity      SEQUENCE { notBefore Time, notAfter Time }
//!   … }, … }
//! Time            UTCTime YYMMDDHHMMSSZ, until 2049; GeneralizedTime YYYYMMDDHHMMSSZ
//! ```

use kit::Timestamp;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The dates of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Validity {
    pub(super) fn of(der: &[u8]) -> Option<Self> {
        let (certificate, _) = expect(der, SEQUENCE)?;
        let (mut rest, _) = expect(certificate, SEQUENCE)?;
        if rest.first() == Some(&VERSION) {
            rest = element(rest)?.2;
        }
        // Serial number, signature, issuer.
        for _ in 0..3 {
            rest = element(rest)?.2;
        }
        let (dates, _) = expect(rest, SEQUENCE)?;
        let (not_before, dates) = time(dates)?;
        let (not_after, _) = time(dates)?;
        Some(Self { not_before, not_after })
    }
}

/// The tag and the content of the first element, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == wanted).then_some((content, rest))
}

fn time(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (tag, text, rest) = element(bytes)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        UTC_TIME => {
            let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let digits = text.strip_suffix('Z').filter(|digits| digits.len() == 14 && digits.is_ascii())?;
    let part = |from: usize, to: usize| &digits[from..to];
    // A certificate without an end says 9999-12-31T23:59:59Z, which is past the last moment that we know.
    if part(0, 4) == "9999" {
        return Some((Timestamp::MAX, rest));
    }
    let written = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    );
    Some((written.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn made(from: i32, to: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(["pond.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(from, 2, 3), date_time_ymd(to, 4, 5));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_dates_are_those_that_were_written() {
        for (from, to) in [(1975, 2026), (2049, 2050), (2051, 2100), (2000, 9999)] {
            let dates = Validity::of(&made(from, to)).unwrap();
            assert_eq!(dates.not_before.to_string(), format!("{from}-02-03T00:00:00.000Z"));
            let end =
                if to == 9999 { Timestamp::MAX.to_string() } else { format!("{to}-04-05T00:00:00.000Z") };
            assert_eq!(dates.not_after.to_string(), end);
        }
    }

    #[test]
    fn no_cut_and_no_flip_of_a_bit_is_more_than_unreadable() {
        let whole = made(2020, 2030);
        for end in 0..whole.len() {
            let _ = Validity::of(&whole[..end]);
        }
        for bit in 0..8 * whole.len().min(400) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = Validity::of(&flipped);
        }
        assert_eq!(Validity::of(b""), None);
    }
}
