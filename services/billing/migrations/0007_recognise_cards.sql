-- kind: expand
-- min_compatible_code: 1
-- What verdicts of the abuse service name a card by: a keyed hash of the provider's fingerprint of its number.
ALTER TABLE payment_method ADD COLUMN card_hash bytea CHECK (octet_length(card_hash) = 16);
SELECT gatefold_marks('payment_method', '{"card_hash": "pseudonym; basis: legitimate_interest; retention: until_erasure"}'::jsonb);
