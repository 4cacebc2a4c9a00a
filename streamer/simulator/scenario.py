"""The settings of a simulated world: how much, how long, and every rate with its source."""

from dataclasses import dataclass
from typing import Self

from streamer.errors import ConfigError

MONDAY = 1_736_121_600_000  # 2025-01-06T00:00Z
PAYMENTS_PER_CUSTOMER_DAY = 0.27


@dataclass(frozen=True, slots=True)
class Scenario:
    """One simulated world; two equal scenarios give the same bytes (on one CPU family and numpy version).

    The view is that of a payment provider for shops in several countries, with a till and a web shop.
    `start` is in ms since 1970 UTC, rates are shares of payments by count unless said otherwise.
    `payments_per_day` is the mean at the start; hours, weekdays and seasons move around it and it grows
    by `growth_per_month`.

    **Fraud.** Published: 0.015 % of card payments by count and 0.031 % by value in the EEA (EBA and ECB,
    Report on Payment Fraud, August 2024, first half of 2023); 0.028 % by value in SEPA in 2021, 84 % of
    it without the card present (ECB, Report on card fraud in 2020 and 2021, May 2023); 6.58 cents per 100
    dollars worldwide in 2023 (Nilson Report, January 2025). The defaults add up to 0.36 %, over twenty
    times the EEA's share by count, so that a demo of 50,000 payments has something to learn from; the
    simulated data of the Fraud Detection Handbook (Le Borgne and others, 2022) has 0.84 %. How it splits
    into kinds is an assumption: `card_testing` 0.12 % (bursts of about 20 over 2 to 30 minutes, one to
    three devices, one to four ips), `account_takeover` 0.08 % (about 4 over up to 2 days),
    `compromised_merchant` 0.07 % (about 18 over 3 to 15 days, half of them at that merchant),
    `stolen_card` 0.05 % (about 3.5 within hours), `friendly_fraud` 0.04 % (three customers in a hundred
    do it). From about 30,000 payments on every kind occurs.

    **Answers of the network.** Genuine payments are declined in 2 % at the till, 6 % online and 9 % when
    the merchant initiates; two in five are tried again. Tested cards 55 %, those of a compromised
    merchant 25 %, takeovers 10 % and 7 points more with each payment, stolen cards 5 % and 12 points
    more. Assumptions: published rates differ too much by country and by definition.

    **Reports and chargebacks** of approved fraud. The cardholder notices 90 % (tested cards: 60 %); 75 %
    of that is reported by the issuer (`fraud_reported`) after a lognormal delay with a median of 5 days,
    and 75 % charged back with a median of 18 days, at most 120, the period in which Visa and Mastercard
    accept most disputes. Friendly fraud is always charged back, as fraud, without a report, with a median
    of 30 days. Other disputes: 0.05 % of genuine online payments (`product`), 0.01 % of all
    (`processing`), 0.005 % of all are claimed as fraud by mistake. Published: 0.016 % of payments by
    count end in a chargeback, half of them for fraud (signature-based payments in the US; Hayashi,
    Markiewicz, Sullivan, Federal Reserve Bank of Kansas City, RWP 16-01, 2016); first-party misuse may be
    up to 75 % of chargebacks (Visa, June 2022), of which the defaults have about a sixth. The simulated
    level follows from the fraud share above, and stays, taken over all shops, below what the schemes act
    upon in a single one (Visa's former dispute monitoring: 0.9 % and 100 a month). Delays are
    assumptions. Merchants contest 40 %; of these the merchant wins 25 % after fraud and 45 % otherwise,
    20 to 70 days later (Kansas City Fed, same paper: 70 to 80 % of all end as the merchant's liability).
    A twentieth of the uncontested ones is taken back (`chargeback_reversed`, an assumption).

    **Captures and refunds** (assumptions): at the till and for 70 % online within a minute and a half,
    else within 3 days, 1 % of approved payments are cancelled; refunds follow the trade, from 0.3 %
    (food) to 15 % (fashion), after a median of 8 days, three in ten of them partial. The National Retail
    Federation's 14.5 % of retail sales returned in the US in 2023 is by value and includes the returns
    that these trades do not have.

    **People and shops** (assumptions, unless a source is named): 8 % of payments are subscriptions; about
    0.27 payments a customer and day; activity and spending are lognormal, shops' sizes Zipf-like with
    exponent 0.9; three in ten customers have a second card; 3 % of customer weeks are spent abroad, 2.5 %
    of genuine online payments come through a proxy; amounts are lognormal by trade. Currencies are
    converted at rounded reference rates of the ECB for 2024.

    **Drift** (assumptions): a customer is replaced after 700 days, a device after 500, a card after
    1,000, a favourite shop after 120, an ip at home after 14; prices rise by 0.2 % and wallets by 1 point
    a month; fraudsters change the countries they come from and how they try cards every 45 days.

    `late` is the share of payments and of outcomes that arrive 1 to 30 s after their turn.
    """

    seed: int = 1
    customers: int = 20_000
    merchants: int = 2_000
    payments_per_day: float = 5_400.0
    start: int = MONDAY
    card_testing: float = 0.0012
    account_takeover: float = 0.0008
    compromised_merchant: float = 0.0007
    stolen_card: float = 0.0005
    friendly_fraud: float = 0.0004
    late: float = 0.01
    growth_per_month: float = 0.01

    def __post_init__(self) -> None:
        for name, least in (("customers", 50), ("merchants", 50), ("payments_per_day", 1)):
            value = getattr(self, name)
            if not least <= value < 1e9:
                raise ConfigError(f"Expected {name} from {least} to 10^9, got {value} in Scenario")
        for name in (*ATTACKS, "friendly_fraud", "late", "growth_per_month"):
            value = getattr(self, name)
            if not 0 <= value <= 0.2:
                raise ConfigError(f"Expected a share from 0 to 0.2, got {value} as Scenario.{name}")

    @classmethod
    def for_payments(cls, payments: int, seed: int = 1, days: float = 75.0) -> Self:
        """Build a world whose first `payments` payments span about `days` days of event time.

        Memory follows payments per day: for very many payments pass more days.

        >>> Scenario.for_payments(50_000).customers
        2469
        """
        if payments < 1 or not days > 0:
            raise ConfigError(
                f"Expected at least one payment and more than 0 days, got {payments} and {days}"
            )
        per_day = max(payments / days, 1.0)
        customers = int(min(max(per_day / PAYMENTS_PER_CUSTOMER_DAY, 200), 2_000_000))
        merchants = int(min(max(customers / 10, 100), 50_000))
        return cls(seed=seed, customers=customers, merchants=merchants, payments_per_day=per_day)


ATTACKS = ("card_testing", "account_takeover", "compromised_merchant", "stolen_card")
