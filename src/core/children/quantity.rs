//! Kubernetes quantities as numbers: the API server rewrites them (`1024Mi` comes back as `1Gi`, `0.1` as `100m`), so as text
//! they can never be compared.

/// The value of a quantity in units of 10⁻⁹, or `None` for what is not one.
///
/// The grammar is that of `k8s.io/apimachinery/pkg/api/resource`: a decimal number with a binary (`Ki`…`Ei`) or decimal
/// (`n`…`E`) suffix or an exponent. Digits below 10⁻⁹ round up, as they do there.
pub fn parse(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, digits) = match number.as_bytes().first()? {
        b'-' => (true, &number[1..]),
        b'+' => (false, &number[1..]),
        _ => (false, number),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mantissa: i128 = all.parse().ok()?;
    let power = i32::try_from(fraction.len()).ok()?;
    let (factor, exponent) = scale(suffix)?;
    let shift = exponent.checked_add(9)?.checked_sub(power)?;
    let scaled = mantissa.checked_mul(factor)?;
    let value = if shift >= 0 {
        scaled.checked_mul(ten_to(shift)?)?
    } else {
        let divisor = ten_to(-shift)?;
        scaled / divisor + i128::from(scaled % divisor != 0)
    };
    Some(if negative { -value } else { value })
}

/// Whether two texts are the same quantity.
pub fn equal(a: &str, b: &str) -> bool {
    a == b || matches!((parse(a), parse(b)), (Some(a), Some(b)) if a == b)
}

/// Binary factor and power of ten of a suffix.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

fn ten_to(power: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(power).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_rewrites_stays_equal() {
        for (written, answered) in [
            ("1024Mi", "1Gi"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1k"),
            ("1E3", "1k"),
            ("5368709120", "5Gi"),
            ("0.5", ".5"),
            ("1.", "1"),
            ("+1", "1"),
        ] {
            assert!(equal(written, answered), "{written} {answered}");
        }
        assert!(!equal("1G", "1Gi") && !equal("1", "1m") && !equal("-1", "1"));
    }

    #[test]
    fn what_is_no_quantity_has_no_value() {
        for text in ["", ".", "Gi", "1gi", "1 Gi", "five", "1.2.3", "1-2", "--1", "1e", "1ee3", "1Kb", "9e99999999999"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(!equal("five", "5") && equal("same", "same"));
    }
}
