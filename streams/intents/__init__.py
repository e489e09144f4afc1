"""payment requests, wear state, approvals → approved payments. Money starts here, and only by the wearer's signed yes."""
