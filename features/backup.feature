Feature: Data on the disk can be checked and saved
  A directory is read whole without a change. Damage is told by file and place, with what it means. A backup of a running server brings back
  everything, and nobody who had a job before passes for one who has it now.

  Scenario: A whole directory is read to the last byte
    Given a running server
    And 10 jobs in "mail"
    When the server is stopped
    And the data directory is verified
    Then the command succeeds
    And it prints "10 jobs in 1 queue"

  Scenario: A byte that changed is found
    Given a running server
    And 10 jobs in "mail"
    When the server is killed
    And a byte of the log changes
    And the data directory is verified
    Then the command ends with exit code 5
    And it prints "damaged: log/segment-"
    And it prints "restore the directory from a backup"

  Scenario: What damage left is saved in a new directory
    Given a running server
    And 10 jobs in "mail"
    When the server is stopped
    And a byte of the log changes
    And what is left of the data directory is saved in its place
    Then the command succeeds
    And it prints "nothing is lost"
    When the server is started again
    Then "mail" has 10 waiting jobs

  Scenario: What damage took is named
    Given a running server
    And 10 jobs in "mail"
    When the server is killed
    And a byte of the log changes
    And what is left of the data directory is saved in its place
    Then the command ends with exit code 5
    And it prints "lost: the records 1 to 1 of the log"

  Scenario: A running server is left alone
    Given a running server
    When the data directory is verified
    Then the command ends with exit code 1
    And it prints "is in use by another process"

  Scenario: A running server is saved and comes back elsewhere
    Given a running server
    And 10 jobs in "mail"
    When the server is saved in "backup"
    Then the command succeeds
    When the server is killed
    And "backup" is restored as the data directory
    Then the command succeeds
    And it prints "10 jobs in 1 queue"
    When the server is started again
    Then "mail" has 10 waiting jobs

  Scenario: Only what changed is saved again
    Given a running server
    And 10 jobs in "mail"
    When the server is saved in "backup"
    And the server is saved in "backup"
    Then it prints "0 B of"

  Scenario: A stopped directory is saved
    Given a running server
    And 10 jobs in "mail"
    When the server is killed
    And the data directory is saved in "backup"
    And "backup" is restored as the data directory
    Then it prints "10 jobs in 1 queue"

  Scenario: Who had a job before the restore does not pass for who has it now
    Given a running server
    And 1 jobs in "mail"
    When the server is saved in "backup"
    And a worker fetches from "mail"
    And the server is killed
    And "backup" is restored as the data directory
    And the server is started again
    And a worker fetches from "mail"
    Then its lease token is larger than the first

  Scenario: A damaged backup is not restored
    Given a running server
    And 10 jobs in "mail"
    When the server is saved in "backup"
    And the server is killed
    And a byte of the backup "backup" changes
    And "backup" is restored as the data directory
    Then the command ends with exit code 5
    And it prints "is damaged"
