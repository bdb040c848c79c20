"""Owns money: an integer of minor units with a currency, and the one rule by which it is rounded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from libs import errors


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ISO 4217 (list one), by how many decimals the minor unit has.
_TWO_DECIMALS = _codes(
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC "
    "CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD "
    "KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO "
    "NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL "
    "THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
)
_ZERO_DECIMALS = _codes("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF")
_THREE_DECIMALS = _codes("BHD IQD JOD KWD LYD OMR TND")
_FOUR_DECIMALS = _codes("CLF UYW")

# Stripe, "Supported currencies", special cases. ISK and UGX have no decimals and are still sent with two; MGA has two
# and is sent with none. (HUF and TWD are charged with two decimals as in ISO 4217; only Stripe's payouts, which are no
# call of ours, want whole units.)
_STRIPE_HUNDREDFOLD = frozenset({"ISK", "UGX"})
_STRIPE_HUNDREDTH = frozenset({"MGA"})
# Stripe takes three decimals whose last digit is 0.
_STRIPE_STEP = dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 10)

_MOST = 2**63 - 1


class MoneyFields(Protocol):
    """Anything with the fields of gatefold.money.v1.Money."""

    @property
    def amount_minor(self) -> int: ...
    @property
    def currency(self) -> str: ...


def exponent(currency: str) -> int:
    """Returns how many decimals the currency's minor unit has (ISO 4217).

    Raises `invalid("currency_unknown")` for anything that is not a current code in capitals.
    """
    if currency in _TWO_DECIMALS:
        return 2
    if currency in _ZERO_DECIMALS:
        return 0
    if currency in _THREE_DECIMALS:
        return 3
    if currency in _FOUR_DECIMALS:
        return 4
    raise errors.invalid(
        "currency_unknown", "This must be a current ISO 4217 currency code in capitals.", field="currency"
    )


@dataclass(frozen=True, order=False)
class Money:
    """An amount in the currency's minor unit (cents for EUR, yen for JPY, fils for KWD).

    Raises `invalid("currency_unknown")` and, past 64 bits, `invalid("amount_out_of_range")`. Amounts of different
    currencies never meet: `invalid("currency_mismatch")`.
    """

    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.amount_minor) is not int:
            raise TypeError("an amount of money is an int of minor units")
        if not -_MOST <= self.amount_minor <= _MOST:
            raise errors.invalid("amount_out_of_range", "This amount is too large.", field="amount_minor")
        exponent(self.currency)

    @classmethod
    def zero(cls, currency: str) -> "Money":
        """Returns nothing, in this currency."""
        return cls(0, currency)

    @classmethod
    def of(cls, message: MoneyFields) -> "Money":
        """Reads a gatefold.money.v1.Money, or anything of its shape."""
        return cls(message.amount_minor, message.currency)

    def __add__(self, other: "Money") -> "Money":
        return Money(self.amount_minor + self._same(other), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.amount_minor - self._same(other), self.currency)

    def __mul__(self, times: int) -> "Money":
        if type(times) is not int:
            raise TypeError("money is multiplied by whole numbers; for shares of it there are ratio() and allocate()")
        return Money(self.amount_minor * times, self.currency)

    __rmul__ = __mul__

    def __neg__(self) -> "Money":
        return self.negate()

    def __bool__(self) -> bool:
        return self.amount_minor != 0

    def __lt__(self, other: "Money") -> bool:
        return self.amount_minor < self._same(other)

    def __le__(self, other: "Money") -> bool:
        return self.amount_minor <= self._same(other)

    def __gt__(self, other: "Money") -> bool:
        return self.amount_minor > self._same(other)

    def __ge__(self, other: "Money") -> bool:
        return self.amount_minor >= self._same(other)

    def __str__(self) -> str:
        decimals = exponent(self.currency)
        digits = str(abs(self.amount_minor)).rjust(decimals + 1, "0")
        sign = "-" if self.amount_minor < 0 else ""
        whole, fraction = (digits[:-decimals], f".{digits[-decimals:]}") if decimals else (digits, "")
        return f"{sign}{whole}{fraction} {self.currency}"

    def negate(self) -> "Money":
        """Returns the amount with the other sign."""
        return Money(-self.amount_minor, self.currency)

    def ratio(self, numerator: int, denominator: int) -> "Money":
        """Returns numerator/denominator of the amount, rounded half to even; the one rounding rule there is."""
        if type(numerator) is not int or type(denominator) is not int:
            raise TypeError("a ratio is two whole numbers")
        if denominator == 0:
            raise errors.invalid("ratio_undefined", "A share of nothing cannot be computed.")
        product = self.amount_minor * numerator
        if denominator < 0:
            product, denominator = -product, -denominator
        quotient, rest = divmod(product, denominator)
        if 2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1):
            quotient += 1
        return Money(quotient, self.currency)

    def allocate(self, weights: Sequence[int]) -> list["Money"]:
        """Splits the amount by weights so that the parts add up to it exactly.

        Largest remainder: what rounding down leaves over goes, a unit each, to the largest remainders, the earlier
        first among equals. A negative amount splits as its positive twin does. Raises `invalid("weights_invalid")`
        unless the weights are whole, not negative and not all zero.
        """
        total = sum(weights)
        if any(type(weight) is not int or weight < 0 for weight in weights) or total <= 0:
            raise errors.invalid("weights_invalid", "Weights must be whole numbers, none negative and not all zero.")
        sign = -1 if self.amount_minor < 0 else 1
        divided = [divmod(abs(self.amount_minor) * weight, total) for weight in weights]
        parts = [quotient for quotient, _ in divided]
        left = abs(self.amount_minor) - sum(parts)
        for index in sorted(range(len(divided)), key=lambda i: (-divided[i][1], i))[:left]:
            parts[index] += 1
        return [Money(sign * part, self.currency) for part in parts]

    def to_stripe(self) -> tuple[int, str]:
        """Returns the amount and currency as Stripe's API takes them.

        Raises `invalid("amount_not_chargeable")` for amounts that Stripe cannot represent: a third decimal that is
        not 0, cents of MGA.
        """
        step = _STRIPE_STEP.get(self.currency, 100 if self.currency in _STRIPE_HUNDREDTH else 1)
        if self.amount_minor % step:
            raise errors.invalid(
                "amount_not_chargeable",
                f"Amounts in {self.currency} must be multiples of {step} minor units to be charged.",
                field="amount_minor",
            )
        if self.currency in _STRIPE_HUNDREDFOLD:
            return self.amount_minor * 100, self.currency.lower()
        if self.currency in _STRIPE_HUNDREDTH:
            return self.amount_minor // 100, self.currency.lower()
        return self.amount_minor, self.currency.lower()

    @classmethod
    def from_stripe(cls, amount: int, currency: str) -> "Money":
        """Reads an amount of Stripe's; raises `invalid("amount_not_chargeable")` for cents of ISK or UGX."""
        code = currency.upper()
        if code in _STRIPE_HUNDREDFOLD:
            if amount % 100:
                raise errors.invalid("amount_not_chargeable", f"{code} has no cents.", field="amount_minor")
            return cls(amount // 100, code)
        if code in _STRIPE_HUNDREDTH:
            return cls(amount * 100, code)
        return cls(amount, code)

    def _same(self, other: "Money") -> int:
        if other.currency != self.currency:
            raise errors.invalid(
                "currency_mismatch", f"{self.currency} and {other.currency} cannot be reckoned together."
            )
        return other.amount_minor


def total(amounts: Sequence[Money], currency: str) -> Money:
    """Returns the sum; nothing of `currency` when there are none."""
    result = Money.zero(currency)
    for amount in amounts:
        result += amount
    return result
