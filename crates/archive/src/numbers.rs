//! Numbers as tar writes them: octal digits, GNU's binary form, and decimal times with a fraction.

use crate::Error;

/// A moment since 1970; nanoseconds count forward, before 1970 too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

const NANOSECOND_DIGITS: usize = 9;
const NANOSECONDS: u32 = 1_000_000_000;

/// A field of a header. Empty is zero.
pub(crate) fn parse(field: &[u8]) -> Result<i64, Error> {
    const WRONG: Error = Error::Malformed("a number is not one");
    match field.first() {
        // GNU: the rest is binary, big-endian, in two's complement.
        Some(first) if first & 0x80 != 0 => {
            let negative = first & 0x40 != 0;
            let mut value: i64 = if negative { -1 } else { 0 };
            for (index, byte) in field.iter().enumerate() {
                let byte = if index == 0 && !negative {
                    byte & 0x7f
                } else {
                    *byte
                };
                if value.checked_mul(256).is_none() {
                    return Err(WRONG);
                }
                value = (value << 8) | i64::from(byte);
            }
            Ok(value)
        }
        _ => {
            let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
            let digits = text.trim_ascii();
            digits.iter().try_fold(0_i64, |value, digit| match digit {
                b'0'..=b'7' => value
                    .checked_mul(8)
                    .and_then(|value| value.checked_add(i64::from(digit - b'0')))
                    .ok_or(WRONG),
                _ => Err(WRONG),
            })
        }
    }
}

/// Writes octal digits with a NUL behind them; false where the number does not fit.
pub(crate) fn write_octal(field: &mut [u8], value: u64) -> bool {
    let Some((end, digits)) = field.split_last_mut() else {
        return false;
    };
    *end = 0;
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        // Three bits always fit.
        *digit = b'0' | u8::try_from(rest & 7).unwrap_or_default();
        rest >>= 3;
    }
    rest == 0
}

/// A whole decimal number.
pub(crate) fn parse_decimal(text: &[u8]) -> Result<u64, Error> {
    std::str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|value| i64::try_from(*value).is_ok())
        .ok_or(Error::Malformed("a decimal number is not one"))
}

/// Seconds with a fraction, as pax has them: `-1.5` is half a second after the second -2.
pub(crate) fn parse_time(text: &[u8]) -> Result<Time, Error> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (
            text.get(..dot).unwrap_or_default(),
            text.get(dot.saturating_add(1)..).unwrap_or_default(),
        ),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(parse_decimal(whole)?).unwrap_or(i64::MAX);
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(Error::Malformed("a time is not one"));
    }
    // What is finer than a nanosecond is cut off.
    let nanoseconds = (0..NANOSECOND_DIGITS).fold(0_u32, |value, index| {
        let digit = fraction.get(index).map_or(0, |digit| digit - b'0');
        value * 10 + u32::from(digit)
    });
    Ok(match (negative, nanoseconds) {
        (false, nanoseconds) => Time {
            seconds,
            nanoseconds,
        },
        (true, 0) => Time {
            seconds: -seconds,
            nanoseconds,
        },
        (true, nanoseconds) => Time {
            seconds: -seconds - 1,
            nanoseconds: NANOSECONDS - nanoseconds,
        },
    })
}

/// The same as text.
pub(crate) fn format_time(
    Time {
        seconds,
        nanoseconds,
    }: Time,
) -> String {
    let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
        (false, nanoseconds) => ("", seconds.unsigned_abs(), nanoseconds),
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, nanoseconds) => (
            "-",
            seconds.unsigned_abs() - 1,
            NANOSECONDS.saturating_sub(nanoseconds),
        ),
    };
    if nanoseconds == 0 {
        return format!("{sign}{seconds}");
    }
    format!("{sign}{seconds}.{nanoseconds:09}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn octal_and_binary_fields_are_read() {
        assert_eq!(parse(b"0000644\0").unwrap(), 0o644);
        assert_eq!(parse(b"   12 \0").unwrap(), 0o12);
        assert_eq!(parse(b"\0\0\0").unwrap(), 0);
        assert_eq!(
            parse(b"\x80\0\0\0\0\0\0\x02\0\0\0\x01").unwrap(),
            0x2_0000_0001
        );
        assert_eq!(parse(&[0xff; 12]).unwrap(), -1);
    }

    #[test]
    fn what_is_no_number_is_malformed() {
        for field in [
            &b"8"[..],
            b"-1",
            b"1 1",
            b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(parse(field).is_err(), "{field:?}");
        }
        for text in ["", "-", "1.x", "+1", "1e3", "99999999999999999999", "."] {
            assert!(parse_time(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn times_before_1970_count_forward() {
        assert_eq!(
            parse_time(b"-1.5").unwrap(),
            Time {
                seconds: -2,
                nanoseconds: 500_000_000
            }
        );
        assert_eq!(
            format_time(Time {
                seconds: -2,
                nanoseconds: 500_000_000
            }),
            "-1.500000000"
        );
        assert_eq!(
            format_time(Time {
                seconds: -1,
                nanoseconds: 999_999_999
            }),
            "-0.000000001"
        );
    }

    proptest! {
        #[test]
        fn times_come_back_as_they_were(seconds in -100_000_000_000_i64..100_000_000_000, nanoseconds in 0..NANOSECONDS) {
            let time = Time { seconds, nanoseconds };
            prop_assert_eq!(parse_time(format_time(time).as_bytes()).unwrap(), time);
        }

        #[test]
        fn octal_numbers_come_back_as_they_were(value in 0_u64..0o77_777_777_777) {
            let mut field = [0; 12];
            prop_assert!(write_octal(&mut field, value));
            prop_assert_eq!(parse(&field).unwrap(), i64::try_from(value).unwrap());
        }
    }
}
