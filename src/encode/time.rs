//! A commit's time, from PostgreSQL's microseconds since 2000 to RFC 3339.

use std::io::Write as _;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Days from 0000-03-01, where the year's last day is a leap day, to 2000-01-01.
const DAYS_TO_2000: i64 = 730_425;
/// Days in 400 years: the calendar repeats.
const DAYS_PER_ERA: i64 = 146_097;

/// Appends `2026-11-23T10:00:00.123456Z`. A year that RFC 3339 has no place for is written as it
/// is: more digits, or a minus.
pub(super) fn rfc3339(micros: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(micros.div_euclid(MICROS_PER_DAY));
    let of_day = micros.rem_euclid(MICROS_PER_DAY);
    let (second, micro) = (of_day / MICROS_PER_SECOND, of_day % MICROS_PER_SECOND);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let sign = if year < 0 { "-" } else { "" };
    let year = year.abs();
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        "{sign}{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z"
    );
}

/// Year, month and day of the Gregorian calendar; `days` since 2000-01-01.
///
/// Howard Hinnant's `civil_from_days`: with March as the first month, the leap day is the last of
/// the year and the lengths of the months follow a line.
const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_2000;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> String {
        let mut out = Vec::new();
        rfc3339(micros, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn prints_known_times() {
        for (micros, text) in [
            (0, "2000-01-01T00:00:00.000000Z"),
            (-1, "1999-12-31T23:59:59.999999Z"),
            (-946_684_800_000_000, "1970-01-01T00:00:00.000000Z"),
            (5_097_600_000_000, "2000-02-29T00:00:00.000000Z"),
            (848_743_200_123_456, "2026-11-23T10:00:00.123456Z"),
            (i64::MAX, "294277-01-09T04:00:54.775807Z"),
            (i64::MIN, "-290278-12-22T19:59:05.224192Z"),
        ] {
            assert_eq!(at(micros), text);
        }
    }

    /// The slow way: a day at a time.
    #[test]
    fn every_day_of_six_centuries_follows_the_one_before() {
        let leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
        let (mut year, mut month, mut day) = (2000, 1, 1);
        for days in 0..220_000 {
            assert_eq!(civil(days), (year, month, day), "{days}");
            let length = match month {
                2 if leap(year) => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_time_round_trips(micros: i64) {
            let text = at(micros);
            let (sign, rest) = text.strip_prefix('-').map_or((1, &*text), |rest| (-1, rest));
            let numbers: Vec<i64> = rest
                .split(['-', 'T', ':', '.', 'Z'])
                .filter_map(|part| part.parse().ok())
                .collect();
            let [year, month, day, hour, minute, second, micro] = numbers[..] else { panic!() };
            // days_from_civil, in i128 as the extremes leave no room
            let year = i128::from(sign * year - i64::from(month <= 2));
            let march = i128::from((month + 9) % 12);
            let era = year.div_euclid(400);
            let yoe = year.rem_euclid(400);
            let doe = yoe * 365 + yoe / 4 - yoe / 100 + (153 * march + 2) / 5 + i128::from(day) - 1;
            let days = era * 146_097 + doe - i128::from(DAYS_TO_2000);
            let seconds = days * 86_400 + i128::from(hour * 3600 + minute * 60 + second);
            proptest::prop_assert_eq!(seconds * 1_000_000 + i128::from(micro), i128::from(micros));
        }
    }
}
