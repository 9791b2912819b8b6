package rule

import "time"

// Local is a moment on the hoster's clock, as local(time) gives it to rules.
type Local struct {
	Year    int  `expr:"year"`
	Month   int  `expr:"month"`
	Day     int  `expr:"day"`
	Hour    int  `expr:"hour"`
	Minute  int  `expr:"minute"`
	Second  int  `expr:"second"`
	Weekday int  `expr:"weekday"` // 1 Monday … 7 Sunday
	YearDay int  `expr:"yearday"`
	Week    int  `expr:"week"`    // ISO 8601
	Night   bool `expr:"night"`   // 21:00–07:00
	Weekend bool `expr:"weekend"` // Saturday, Sunday
	Office  bool `expr:"office"`  // Monday to Friday, 08:00–18:00
	Holiday bool `expr:"holiday"` // a Dutch public holiday
}

// localNames are the parts of Local as rules write them.
var localNames = []string{"year", "month", "day", "hour", "minute", "second", "weekday", "yearday", "week", "night", "weekend", "office", "holiday"}

func localTime(ms int64, zone *time.Location) Local {
	t := time.UnixMilli(ms).In(zone)
	var l Local
	var month time.Month
	l.Year, month, l.Day = t.Date()
	l.Month = int(month)
	l.Hour, l.Minute, l.Second = t.Clock()
	l.Weekday = (int(t.Weekday())+6)%7 + 1
	l.YearDay = t.YearDay()
	_, l.Week = t.ISOWeek()
	l.Night = l.Hour >= 21 || l.Hour < 7
	l.Weekend = l.Weekday >= 6
	l.Office = !l.Weekend && l.Hour >= 8 && l.Hour < 18
	l.Holiday = holiday(l.Year, l.Month, l.Day, l.YearDay)
	return l
}

// holiday knows the Dutch public holidays: New Year, Easter Sunday and Monday,
// King's Day (27 April, the 26th when that is a Sunday), Liberation Day in
// years divisible by five, Ascension, Whit Sunday and Monday, Christmas and
// Boxing Day.
func holiday(year, month, day, yearDay int) bool {
	switch {
	case month == 1 && day == 1, month == 12 && (day == 25 || day == 26), month == 5 && day == 5 && year%5 == 0:
		return true
	case month == 4 && (day == 26 || day == 27):
		sunday := time.Date(year, 4, 27, 0, 0, 0, 0, time.UTC).Weekday() == time.Sunday
		return sunday == (day == 26)
	}
	switch yearDay - easter(year) {
	case 0, 1, 39, 49, 50:
		return true
	}
	return false
}

// easter is the day of the year of Easter Sunday in the Gregorian calendar, by
// the algorithm known as Meeus, Jones and Butcher.
func easter(year int) int {
	a, b, c := year%19, year/100, year%100
	d, e := b/4, b%4
	g := (8*b + 13) / 25
	h := (19*a + b - d - g + 15) % 30
	i, k := c/4, c%4
	l := (32 + 2*e + 2*i - h - k) % 7
	m := (a + 11*h + 19*l) / 433
	month := (h + l - 7*m + 90) / 25
	day := (h + l - 7*m + 33*month + 19) % 32
	return time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC).YearDay()
}
