"""What happened, to people and programs elsewhere: IRC, Matrix, Slack, webhooks, e-mail, CDEvents."""
