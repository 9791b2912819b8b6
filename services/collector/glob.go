package collector

// globMatch says whether s matches a pattern in which * stands for any bytes and
// ? for one. It takes at most len(pattern) × len(s) steps.
func globMatch(pattern, s string) bool {
	p, i, star, back := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, back = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0: // let the last star take one byte more
			back++
			p, i = star+1, back
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
