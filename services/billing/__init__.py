"""The billing service: what is sold, who subscribed, what is owed and what was paid."""
