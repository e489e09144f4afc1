"""Recognition away from the flow: pictures from files are looked at as the stage looks at frames; what is said of them is shown,
measured and calibrated. For commands: no stage imports it."""
