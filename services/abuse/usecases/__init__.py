"""What abuse does: watches activities, keeps verdicts, lets people review them."""
