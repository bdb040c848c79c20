"""What auth asks of others: services, and sources of breached passwords."""
