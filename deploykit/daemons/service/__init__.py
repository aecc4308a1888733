"""What every daemon needs: signals, reload, logs."""
