#!/usr/bin/perl
# SPDX-License-Identifier: MIT
# run.pl [--jobs N] [--last TEST] TEST...: runs TAP tests (an argument may hold a program and its arguments), one of them when
# all others have ended, and closes with their comments that begin with "figure: ", and the counts.
use strict;
use warnings;
use Getopt::Long;
use TAP::Harness;
use TAP::Parser::Aggregator;

my $jobs = 1;
my @last;
my $usage = "usage: $0 [--jobs N] [--last TEST] TEST...\n";
GetOptions('jobs=i' => \$jobs, 'last=s' => \@last, 'help' => sub { print $usage; exit 0 }) or die $usage;
@ARGV or die $usage;
$ENV{CMOCKA_MESSAGE_OUTPUT} = 'TAP';

my $harness = TAP::Harness->new({
	jobs => $jobs, timer => 1, failures => 1, comments => 0, merge => 1, color => -t STDOUT ? 1 : 0,
	exec => sub { my ($harness, $test) = @_; return [split ' ', $test] },
});
# What a reader of a run that passed wants to see, too.
my @figures;
$harness->callback(made_parser => sub {
	my ($parser) = @_;
	$parser->callback(comment => sub { push @figures, $1 if $_[0]->as_string =~ /^#\s*figure: (.*)/ });
});
my $result = TAP::Parser::Aggregator->new;
$result->start;
$harness->aggregate_tests($result, @$_) for grep { @$_ } \@ARGV, \@last;
$result->stop;
$harness->summary($result);
print "$_\n" for @figures;
# A program that ends badly has failed whatever its lines said, and so has a run without a check.
my $skipped = scalar $result->skipped;
my $failed = scalar $result->failed;
$failed ||= 1 if !$result->all_passed || !$result->total;
printf "%d passed, %d failed, %d skipped\n", $result->passed - $skipped, $failed, $skipped;
exit($failed ? 1 : 0);
