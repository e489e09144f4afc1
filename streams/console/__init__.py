"""The operators' page: journeys hop by hop, the flow's last hour, and the dead letters. It only reads."""
